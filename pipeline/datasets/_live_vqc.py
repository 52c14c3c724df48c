"""LIVE-VQC: 585 videos from phones (Sinno and Bovik, TIP 2019)."""

from __future__ import annotations

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset

DATASET = PublishedDataset(
    name="live-vqc",
    title="LIVE-VQC",
    scale=(0, 100),
    counts={585: "every release"},
    files=(
        LabelFile(("data.mat",), video="video_list", score="mos"),
        LabelFile(("LIVE-VQCinfo.mat",), video="video_names", score="scores", origin="MDTVSFA"),
        LabelFile(("LIVE_VQC_metadata.csv",), video="File", score="MOS", origin="VIDEVAL"),
        FAST_VQA,
    ),
    naming="A001.mp4, often in a folder Video",
)
