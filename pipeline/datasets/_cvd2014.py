"""CVD2014: 234 videos of 5 scenes by 78 cameras (Nuutinen et al., TIP 2016)."""

from __future__ import annotations

import re

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset

_NAME = re.compile(r"Test\d+_(?P<scene>.+)_D\d+", re.IGNORECASE)


def _scene(video_id: str) -> str:
    # The label files' ref_ids number the videos one by one; only the names tell the scenes.
    name = _NAME.fullmatch(video_id)
    return name["scene"].casefold() if name else video_id


DATASET = PublishedDataset(
    name="cvd2014",
    title="CVD2014",
    scale=(-10, 100),  # realigned scores: the lowest is -6.5
    counts={234: "every release"},
    files=(
        LabelFile(("*Realignment_MOS.csv", "*Realignment_MOS.xls*"), video="File_name", score="Realignment MOS"),
        LabelFile(("CVD2014info.mat",), video="video_names", score="scores", origin="MDTVSFA"),
        FAST_VQA,
    ),
    naming="Test1/City/Test01_City_D01.avi; the folders may be missing",
    split="random 80/20 splits by scene",
    group=_scene,
    contents="5 scenes, from the names",
    divided_by=100.0,
)
