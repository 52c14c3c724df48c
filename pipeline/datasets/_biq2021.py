"""BIQ2021: 12,000 photographs (Ahmed and Asif, JEI 2022), each a video of one frame."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from diffvqa.pipeline.datasets._published import LabelFile, PublishedDataset, without_suffix

_NAME = re.compile(r"(ss\d+)[ _]\(?(\d+)\)?", re.IGNORECASE)
_TRAIN = ("Train (Images and MOS).csv", "Train.csv")
_TEST = ("Test (Images and MOS).csv", "Test.csv")


def _identify(path: PurePosixPath) -> str:
    name = _NAME.fullmatch(without_suffix(path))
    return f"{name[1].lower()}_{name[2]}" if name else without_suffix(path)


DATASET = PublishedDataset(
    name="biq2021",
    title="BIQ2021",
    scale=(0, 1),
    counts={12000: "training and test", 10000: "training alone", 2000: "test alone"},
    files=(
        LabelFile(_TRAIN, video="Image Name", score="MOS", part="train"),
        LabelFile(_TEST, video="Image Name", score="MOS", part="test"),
        # The same without a header.
        LabelFile(_TRAIN, video="path", score="mos", part="train"),
        LabelFile(_TEST, video="path", score="mos", part="test"),
        LabelFile(("BIQ2021.csv", "BIQ2021.xlsx"), video="Image Name", score="MOS"),
        LabelFile(("labels.csv",), video="image_name", score="mos", origin="a subset"),
    ),
    naming="ss01 (10).jpg or ss01_10.jpg",
    split="official: 10,000 to train on, 2,000 to test on; photographs of one object stand on both sides",
    identify=_identify,
    cells={"train": "train", "test": "test"},
    pictures=True,
)
