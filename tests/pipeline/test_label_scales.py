"""Labels on other scales, and such of which lower is better, from the label file to the scores of new videos."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diffvqa.pipeline._cli import main

# Another number of threads rounds otherwise.
ALIKE = ("--set", "runtime.workers=1", "--set", "runtime.threads=1")


def scores(runs: Path, videos: Path, out: Path) -> tuple[list[float], set[str]]:
    """Return the scores of a few clips, and what they are said to be."""
    assert main(["score", str(videos / "20"), "--out", str(out), "--runs", str(runs), *ALIKE]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["score"]) for row in rows], {row["label"] for row in rows}


@pytest.mark.parametrize(
    ("column", "written", "on_its_scale", "options", "label"),
    [
        ("MOS", lambda mos: mos / 100, lambda mos: mos / 100, [], "MOS"),
        ("DMOS", lambda mos: 100 - mos, lambda mos: mos - 100, ["--lower-is-better"], "DMOS (turned round, higher"),
    ],
    ids=["0 to 1", "DMOS"],
)
def test_scores_come_on_the_scale_of_the_labels_and_higher_is_better(
    trained: Path,
    videos: Path,
    labels: Path,
    settings_file: Path,
    tmp_path: Path,
    column: str,
    written: Callable[[float], float],
    on_its_scale: Callable[[float], float],
    options: list[str],
    label: str,
) -> None:
    """As those of a model of the same videos and their MOS of 0 to 100."""
    with labels.open(newline="", encoding="utf-8") as file:
        rows = [(row["file"], written(float(row["MOS"])), row["content"]) for row in csv.DictReader(file)]
    own = tmp_path / "labels.csv"
    own.write_text(f"file,{column},content\n" + "".join(f"{name},{score!r},{group}\n" for name, score, group in rows))
    runs = tmp_path / "runs"
    columns = ["--video-column", "file", "--score-column", column, "--group-column", "content", *options]
    arguments = ["--videos", str(videos), "--labels", str(own), *columns, "--runs", str(runs)]
    assert main(["prepare", "csv", "--name", "set", *arguments]) == 0
    shutil.copytree(trained / "set/features", runs / "set/features")
    assert main(["train", "set", "--runs", str(runs), "--config", str(settings_file)]) == 0
    expected, _ = scores(trained, videos, tmp_path / "mos.csv")
    found, labelled = scores(runs, videos, tmp_path / "own.csv")
    spread = abs(on_its_scale(100.0) - on_its_scale(0.0))
    assert found == pytest.approx([on_its_scale(score) for score in expected], abs=0.005 * spread)
    (said,) = labelled
    assert said.startswith(label)
