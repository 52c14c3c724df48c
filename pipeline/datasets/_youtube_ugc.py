"""YouTube-UGC: up to 1,380 labelled videos of 20 seconds (Wang et al., MMSP 2019)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset, without_suffix

_ENCODING = re.compile(r"(?:_crf_\d+_ss_\d+_t_\d+(?:\.\d+)?|_orig)$")


def _identify(path: PurePosixPath) -> str:
    return _ENCODING.sub("", without_suffix(path))


DATASET = PublishedDataset(
    name="youtube-ugc",
    title="YouTube-UGC",
    scale=(1, 5),
    counts={
        1380: "every labelled video",
        1323: "VIDEVAL, without 57 grey videos",
        1147: "FAST-VQA",
        1036: "a smaller release",
    },
    files=(
        LabelFile(("*MOS_for_YouTube_UGC_dataset.csv", "*MOS_for_YouTube_UGC_dataset.xlsx"), "vid", "MOSFull"),
        LabelFile(("YOUTUBE_UGC_metadata.csv",), video="vid", score="MOSFull", origin="VIDEVAL"),
        LabelFile(("YOUTUBE_UGC*info.mat",), video="video_names", score="scores", origin="MDTVSFA"),
        FAST_VQA,
    ),
    naming="Sports_2160P-4e9f.mkv, or Sports_2160P-4e9f_crf_10_ss_00_t_20.0.mp4 (also _orig)",
    identify=_identify,
)
