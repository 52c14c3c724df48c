"""KonIQ-10k: 10,073 photographs (Hosu et al., TIP 2020), each a video of one frame."""

from __future__ import annotations

from diffvqa.pipeline.datasets._published import LabelFile, PublishedDataset

DATASET = PublishedDataset(
    name="koniq-10k",
    title="KonIQ-10k",
    scale=(0, 100),
    counts={10073: "every release"},
    files=(
        LabelFile(
            ("koniq10k_distributions_sets.csv",),
            video="image_name",
            score="MOS",
            split_column="set",
            split_values={"training": "train", "validation": "validation", "test": "test"},
        ),
        LabelFile(("koniq10k_scores_and_distributions.csv",), video="image_name", score="MOS_zscore"),
        LabelFile(("training_labels.txt",), video="path", score="mos", origin="FAST-VQA", part="train"),
        LabelFile(("validation_labels.txt",), video="path", score="mos", origin="FAST-VQA", part="validation"),
        LabelFile(("test_labels.txt",), video="path", score="mos", origin="FAST-VQA", part="test"),
    ),
    naming="10004473376.jpg",
    split="official: 7,058 to train on, 1,000 to validate on, 2,015 to test on",
    cells={"train": "train", "validation": "validation", "test": "test"},
    pictures=True,
)
