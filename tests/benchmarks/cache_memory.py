"""How much memory writing, streaming, verifying and exporting take, as the number of videos grows.

Every task runs in a process of its own, whose peak resident size counts. Exit status 1: with the most videos some task
takes over 10 % more than with the fewest.

    python -m tests.benchmarks.cache_memory [--quick] [--videos 100 1000 10000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffvqa.cache._export import FeatureExport, Labels
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._export_npz import export_npz
from diffvqa.cache._export_parquet import export_parquet
from diffvqa.cache._import_h5 import import_h5
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._streaming import FeatureStream
from diffvqa.cache._verify import verify

from .synthetic_cache import SMALL, write_cache
from .whole.measuring import peak_resident_size

MOST_GROWTH = 1.10
STREAM_MEMORY = 4 * 2**20


@dataclass(frozen=True)
class TaskCost:
    """What a task takes.

    Attributes:
        seconds: Without Python's start and the imports.
        peak: Bytes that are resident at most.
    """

    seconds: float
    peak: int


def main() -> int:
    """Run every task with every number of videos, print the peaks and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 300 videos")
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--folder", type=Path, help="to write to; a temporary folder by default")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        begun = time.perf_counter()
        TASKS[options.task](options.folder, options.videos[0])
        seconds = time.perf_counter() - begun
        sys.stdout.write(json.dumps({"seconds": seconds, "peak": peak_resident_size()}))
        return 0
    counts = [100, 300] if options.quick else options.videos
    peaks: dict[str, list[int]] = {task: [] for task in TASKS}
    for count in counts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for task, measured in peaks.items():
                measured.append(cost_of(task, Path(folder), count).peak)
    table = Table("task", *(f"{count} videos, MB" for count in counts), "growth", title="peak resident size")
    for task, measured in peaks.items():
        table.add_row(task, *(f"{peak / 1e6:.1f}" for peak in measured), f"{measured[-1] / measured[0]:.3f}")
    Console().print(table)
    worst = max(measured[-1] / measured[0] for measured in peaks.values())
    Console().print(
        f"worst growth {worst:.3f} (at most {MOST_GROWTH:.2f}): {'met' if worst <= MOST_GROWTH else 'MISSED'}"
    )
    return int(worst > MOST_GROWTH)


def cost_of(task: str, folder: Path, videos: int) -> TaskCost:
    """Return what a task takes, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--task", task, "--folder", str(folder), "--videos", str(videos)]
    return TaskCost(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def stream(folder: Path, videos: int) -> None:
    """Read everything once, shuffled."""
    found = sum(1 for _ in FeatureStream(FeatureCache(folder / "cache"), seed=0, memory=STREAM_MEMORY))
    if found != videos:
        raise RuntimeError(f"{found} of {videos} videos")


def chosen(folder: Path) -> FeatureExport:
    """Return an export of everything."""
    cache = FeatureCache(folder / "cache")
    return FeatureExport(cache, labels=Labels(dict.fromkeys(cache.ids(), 1.0)), provenance={})


TASKS: dict[str, Callable[[Path, int], object]] = {
    "write": lambda folder, videos: write_cache(folder / "cache", SMALL, videos),
    "verify": lambda folder, _: verify(folder / "cache"),
    "stream": stream,
    "export h5": lambda folder, _: export_h5(chosen(folder), folder / "x.h5"),
    "export npz": lambda folder, _: export_npz(chosen(folder), folder / "npz"),
    "export parquet": lambda folder, _: export_parquet(chosen(folder), folder / "x.parquet"),
    "import h5": lambda folder, _: import_h5(folder / "x.h5", folder / "imported"),
}


if __name__ == "__main__":
    sys.exit(main())
