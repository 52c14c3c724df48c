"""LSVQ: 39,000 videos in three parts (Ying et al., CVPR 2021), together and each part for itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from diffvqa.pipeline.datasets._published import LabelFile, PublishedDataset, without_suffix

_FOLDER_AND_NAME = 2
_BY_IS_TEST = {"True": "test", "False": "train", "1": "test", "0": "train"}


def _identify(path: PurePosixPath) -> str:
    # The folder belongs to the name: 747 exists in several.
    return "/".join((*path.parts[:-1][1 - _FOLDER_AND_NAME :], without_suffix(path)))


_FILES = (
    LabelFile(("labels_train_test.csv",), video="name", score="mos", split_column="is_test", split_values=_BY_IS_TEST),
    LabelFile(("labels_test_1080p.csv",), video="name", score="mos", part="test-1080p"),
    LabelFile(("LSVQ_whole_train.csv",), video="name", score="mos", origin="MinimalisticVQA", part="train"),
    LabelFile(("LSVQ_whole_test.csv",), video="name", score="mos", origin="MinimalisticVQA", part="test"),
    LabelFile(("LSVQ_whole_test_1080p.csv",), "name", "mos", origin="MinimalisticVQA", part="test-1080p"),
    LabelFile(("train_labels.txt", "labels_train.txt"), "path", "mos", origin="FAST-VQA", part="train"),
    LabelFile(("labels_test.txt",), video="path", score="mos", origin="FAST-VQA", part="test"),
    LabelFile(("labels_1080p.txt",), video="path", score="mos", origin="FAST-VQA", part="test-1080p"),
)

WHOLE = PublishedDataset(
    name="lsvq",
    title="LSVQ",
    scale=(0, 100),
    counts={38815: "FAST-VQA, all three parts", 35242: "FAST-VQA, training and test"},
    files=_FILES,
    naming="yfcc-batch1/747.mp4; the folder belongs to the name",
    split="official: train, tested on test and on test-1080p",
    identify=_identify,
    cells={
        "train": "test=train;test-1080p=train",
        "test": "test=test",
        "test-1080p": "test-1080p=test",
    },
)

_COUNTS = {
    "train": {28056: "every release"},
    "test": {7186: "FAST-VQA", 7220: "MinimalisticVQA"},
    "test-1080p": {3573: "every release"},
}

PARTS = tuple(
    replace(
        WHOLE,
        name=f"lsvq-{part}",
        title=f"LSVQ ({part})",
        counts=counts,
        part=part,
        cells={},
        split="one part of the official split, to train or to test on as a whole",
    )
    for part, counts in _COUNTS.items()
)
