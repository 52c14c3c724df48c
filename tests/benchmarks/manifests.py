"""How long a manifest and the splits of 100,000 videos take, compared with merely parsing the CSV file.

Measures writing and reading the manifest, its official splits, 10 random splits, and writing and reading those as a
file. Each figure is the best of three. Run it with ``python -m tests.benchmarks.manifests [--quick]``; ``--quick``
takes 5,000 videos.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffvqa.pipeline._manifest import Manifest, ManifestRow, read_manifest, write_manifest
from diffvqa.stages._splits import make_splits
from diffvqa.stages._splits_file import read_splits, write_splits
from diffvqa.stages._train_recipe import TrainRecipe

VIDEOS = 100_000
QUICK_VIDEOS = 5_000
REPETITIONS = 3
PARTS = ("train", "train", "train", "train", "test")


def best_of(work: Callable[[], object]) -> float:
    """Return the shortest of several runs, in seconds."""
    durations = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begun)
    return min(durations)


def make_manifest(videos: int) -> Manifest:
    """Return a manifest in the manner of LSVQ, two videos per content."""
    rows = (
        ManifestRow(f"batch{n % 40}/{n}", f"/data/lsvq/batch{n % 40}/{n}.mp4", n / videos, f"g{n // 2}", PARTS[n % 5])
        for n in range(videos)
    )
    return Manifest("benchmark", tuple(rows))


def parse(path: Path) -> None:
    """Parse a CSV file and keep nothing."""
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.reader(file):
            pass


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VIDEOS} videos in place of {VIDEOS}")
    videos = QUICK_VIDEOS if parser.parse_args().quick else VIDEOS
    manifest = make_manifest(videos)
    groups = {row.video_id: row.group for row in manifest.rows}
    with tempfile.TemporaryDirectory() as name:
        folder, splits_file = Path(name), Path(name) / "splits.csv"
        write_manifest(folder, manifest)
        splits = make_splits(groups, TrainRecipe())
        write_splits(splits_file, splits)
        parsing = best_of(lambda: parse(folder / "manifest.csv"))
        works: dict[str, Callable[[], object]] = {
            "write the manifest": lambda: write_manifest(folder, manifest),
            "read the manifest": lambda: read_manifest(folder),
            "official splits": manifest.official_splits,
            "10 random splits": lambda: make_splits(groups, TrainRecipe()),
            "write 10 splits": lambda: write_splits(splits_file, splits),
            "read 10 splits": lambda: read_splits(splits_file),
        }
        table = Table("work", "seconds", "times parsing", title=f"{videos} videos, best of {REPETITIONS}")
        table.add_row("parse the CSV file alone", f"{parsing:.3f}", "1.0")
        for work, run in works.items():
            seconds = best_of(run)
            table.add_row(work, f"{seconds:.3f}", f"{seconds / parsing:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
