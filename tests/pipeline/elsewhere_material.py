"""A training, a search and a grid as a user types them, the same here and on a cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from stage_two_material import RECIPE, make_material, write_dataset

from diffvqa.pipeline._cli import main

SMALL = [f"--set=train.width={RECIPE.width}"]
SMALL += ["--set=train.learning_rate=0.02", "--set=train.batch_size=4", "--set=train.head_width=8"]
SMALL += ["--set=runtime.threads=1"]
# Every new place would compile the kernels of the scan, which takes longer than all else and shows nothing more.
SMALL += ["--set=train.tcab=false"]


def make_runs(folder: Path) -> Path:
    """Two data sets with features; the second has a model."""
    write_dataset(folder, "first", make_material(16, frames=2))
    write_dataset(folder, "second", make_material(12, frames=2, scale=0.7))
    assert main(["train", "second", "--runs", str(folder), "--splits", "1", "--epochs", "1", *SMALL]) == 0
    return folder


def train(runs: Path, *arguments: str) -> int:
    return main(["train", "first", "--runs", str(runs), "--splits", "3", "--epochs", "2", *SMALL, *arguments])


def model_files(runs: Path) -> dict[str, bytes]:
    """All that a training wrote, but for its settings and the times of TensorBoard's files."""
    kept = {".safetensors", ".json", ".csv"}
    return {path.name: path.read_bytes() for path in (runs / "first/model").iterdir() if path.suffix in kept}


def grid(runs: Path, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    """Evaluate both models on both data sets; return the figures and the predictions."""
    command = ["evaluate", "--runs", str(runs), "--set=runtime.threads=1"]
    command += ["--model", "first", "--model", "second", "--on", "first", "--on", "second"]
    command += ["--json", str(runs / "grid.json"), "--predictions", str(runs / "grid.csv")]
    assert main([*command, *arguments]) == 0
    return json.loads((runs / "grid.json").read_text()), (runs / "grid.csv").read_text()


def sweep(runs: Path, *arguments: str, trials: int = 7) -> list[list[str]]:
    """Search anew; return the trials by number."""
    shutil.rmtree(runs / "first/sweep", ignore_errors=True)
    search = ("--search", "learning_rate=1e-4:3e-2:log", "--search", "width=2,4", "--set", "train.epochs=1")
    command = ["sweep", "first", "--runs", str(runs), "--trials", str(trials), "--splits", "2", *search, *SMALL]
    assert main([*command, *arguments]) == 0
    rows = [line.split(",") for line in (runs / "first/sweep/trials.csv").read_text().splitlines()[1:]]
    return sorted(rows, key=lambda row: int(row[0]))
