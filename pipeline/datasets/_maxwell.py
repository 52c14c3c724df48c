"""DIVIDE-MaxWell: 4,543 videos in the wild (Wu et al., ACM MM 2023)."""

from __future__ import annotations

from diffvqa.pipeline.datasets._published import LabelFile, PublishedDataset

DATASET = PublishedDataset(
    name="maxwell",
    title="DIVIDE-MaxWell",
    scale=(0, 5),
    counts={4543: "training and test", 3634: "training alone", 909: "test alone"},
    files=(
        # name, aesthetic, technical and overall score; the last one counts
        LabelFile(("train_labels.txt",), video="path", score="mos", part="train"),
        LabelFile(("val_labels.txt", "test_labels.txt"), video="path", score="mos", part="test"),
    ),
    naming="0000.mp4 to 4542.mp4",
    split="official: 3634 to train on, 909 to test on",
    cells={"train": "train", "test": "test"},
)
