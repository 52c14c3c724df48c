"""LIVE-YT-Gaming: 600 videos of streamed games (Yu et al., TIP 2022)."""

from __future__ import annotations

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset

DATASET = PublishedDataset(
    name="live-yt-gaming",
    title="LIVE-YT-Gaming",
    scale=(0, 100),
    counts={600: "every release"},
    files=(
        LabelFile(("LIVEYTGaming.mat", "LIVE-YT-Gaming*.mat"), video="video_list", score="MOS", origin="ModularBVQA"),
        LabelFile(("LIVE-YT-Gaming*.csv", "LIVE_YT_Gaming*.csv"), video="name", score="mos", origin="FineVQ"),
        FAST_VQA,
    ),
    naming="NAME.mp4, as in the label file",
)
