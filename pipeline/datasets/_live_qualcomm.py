"""LIVE-Qualcomm: 208 videos of 54 scenes by 8 phones (Ghadiyaram et al., TCSVT 2018)."""

from __future__ import annotations

import re

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset

_NAME = re.compile(r"(?P<scene>\d{4}_?[a-z]+\d*)_.+", re.IGNORECASE)


def _scene(video_id: str) -> str:
    # The label files' ref_ids number the videos one by one; only the names tell the scenes.
    name = _NAME.fullmatch(video_id)
    return name["scene"].casefold() if name else video_id


DATASET = PublishedDataset(
    name="live-qualcomm",
    title="LIVE-Qualcomm",
    scale=(0, 100),
    counts={208: "every release"},
    files=(
        LabelFile(("qualcommSubjectiveData.mat",), "qualcommVideoData.vidNames", "qualcommSubjectiveData.unBiasedMOS"),
        LabelFile(("LIVE-Qualcomminfo.mat",), video="video_names", score="scores", origin="MDTVSFA"),
        LabelFile(("mp4labels.txt",), video="path", score="mos", origin="DOVER"),
        FAST_VQA,
    ),
    naming="Artifacts/0723_ManUnderTree_GS5_03_20150723_130016.mp4; the folders may be missing",
    split="random 80/20 splits by scene",
    group=_scene,
    contents="54 scenes, from the names",
    hint="Check --videos and --labels. The videos come as raw .yuv files (1920x1080, yuv420p, 30 frames per second); "
    "convert each without loss: ffmpeg -f rawvideo -pixel_format yuv420p -video_size 1920x1080 -framerate 30 "
    "-i NAME.yuv -c:v libx264 -qp 0 NAME.mp4",
)
