"""A set of photographs with scores, as videos of one frame, through the verbs that videos go through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from training_material import synthetic_picture

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._cli import main

PHOTOGRAPHS = 30


def write_set(folder: Path) -> Path:
    """Write photographs, the more blurred the lower their score, and return their label file."""
    (folder / "images").mkdir(parents=True)
    lines = ["image_name,mos"]
    for number in range(PHOTOGRAPHS):
        blurred = Image.fromarray(synthetic_picture(number, 64)).filter(ImageFilter.GaussianBlur(number % 4))
        blurred.save(folder / f"images/ss01_{number}.png")
        lines.append(f"ss01_{number}.png,{1 - 0.2 * (number % 4)}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    return labels


def test_photographs_are_prepared_extracted_trained_on_evaluated_and_scored(
    settings_file: Path, tmp_path: Path
) -> None:
    labels, runs = write_set(tmp_path / "set"), ["--runs", str(tmp_path / "runs")]
    settings = [*runs, "--config", str(settings_file)]
    places = ["--videos", str(labels.parent / "images"), "--labels", str(labels)]
    assert main(["prepare", "biq2021", "--name", "photos", *places, *runs]) == 0
    assert main(["extract", "photos", *settings, "--strict"]) == 0
    cache = FeatureCache(tmp_path / "runs/photos/features")
    assert len(cache.ids()) == PHOTOGRAPHS
    for video_id in cache.ids():
        assert cache[video_id]["resize/frames"].shape == (1, 32, 32, 3)
        assert cache[video_id]["crop/frames"].shape == (1, 2, 32, 32, 3)
    assert main(["train", "photos", *settings]) == 0
    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--model", "photos", "--on", "photos", "--json", str(figures), *runs]) == 0
    (row,) = json.loads(figures.read_text())
    assert row["protocol"] == "held-out"
    assert -1 <= row["plcc"] <= 1
    out = tmp_path / "scores.jsonl"
    assert main(["score", str(labels.parent / "images/ss01_0.png"), "--out", str(out), "--timeline", *runs]) == 0
    (scored,) = map(json.loads, out.read_text().splitlines())
    assert np.isfinite(scored["score"])
    assert len(scored["timeline"]) == 1
