"""How much of the time an engine has its workers wait, and what a shard costs its driver.

    python -m tests.benchmarks.engines            two Ray workers against one; then 100,000 videos through the driver
    python -m tests.benchmarks.engines --quick    the same in small
    python -m tests.benchmarks.engines --only workers    one of the two, or: --only scale

Nothing is computed: a unit takes a set time, in which its worker sleeps, so that the cores of this machine are not what
is measured. The features are a few bytes per video. Needs Ray.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._run_lock import Run
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry, ShardWriter, StagedShard
from diffvqa.cache._storage import open_storage
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._engines import dispatch
from diffvqa.pipeline._engines.interface import DoneUnit, Place, WorkUnit
from diffvqa.pipeline._engines.local import LocalDecoding
from diffvqa.pipeline._engines.ray_engine import ClusterOptions, RayEngine
from diffvqa.pipeline._extract import publish_units, work_units
from diffvqa.stages._decoding import VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe

SHARD_VIDEOS = 32
SPEC = ArraySpec(
    name="resize/latent",
    dimensions=("frame", "channel", "y", "x"),
    shape=(1, 1, 2, 2),
    dtype="float16",
    unit="1",
    value_range=None,
    description="next to nothing",
)


@dataclass(frozen=True)
class SleepingTask:
    """Takes ``seconds`` for a unit, one at a time in each worker."""

    location: str
    header: CacheHeader
    run: Run
    seconds: float

    @contextmanager
    def open(self, place: Place) -> Iterator[SleepingWorker]:
        """Load nothing."""
        del place
        yield SleepingWorker(self)


@dataclass
class SleepingWorker:
    """Sleeps, then writes."""

    task: SleepingTask
    computes: Any = field(default_factory=threading.Lock)

    def do(self, unit: WorkUnit) -> StagedShard:
        """Sleep and write next to nothing."""
        with self.computes:
            time.sleep(self.task.seconds)
        stamp = SourceStamp(path="", size=0, mtime_ns=0)
        entries = [
            ShardEntry(
                VideoRow(video_id=video.video_id, status="ok", source=stamp),
                {SPEC.name: np.zeros(SPEC.shape, SPEC.dtype)},
            )
            for video in unit.videos
        ]
        return ShardWriter(open_storage(self.task.location), self.task.header, self.task.run).stage(
            entries, unit.number
        )

    def rehearse(self, video: VideoSource) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Nothing takes long."""


@dataclass(frozen=True)
class Measured:
    """One run once all workers are there: times of its last three quarters, and memory.

    Attributes:
        shards: How many there were.
        seconds_per_shard: Wall time.
        driver_seconds_per_shard: Wall time in which the driver was not waiting for its workers.
        driver_cpu_seconds_per_shard: CPU time of the driver's process, Ray's threads in it included.
        memory_early: Bytes that the driver had after a tenth of the shards.
        memory_late: At the end.
        progress: Videos that it was told of.
    """

    shards: int
    seconds_per_shard: float
    driver_seconds_per_shard: float
    driver_cpu_seconds_per_shard: float
    memory_early: int
    memory_late: int
    progress: int


def run(address: str, *, videos: int, workers: int, seconds: float) -> Measured:
    """Extract ``videos`` videos of which nobody has a file."""
    decoding = LocalDecoding(ExtractRecipe(), 1, timeout=60, memory=2048, attempts=1)
    options = ClusterOptions(address=address, workers=workers, threads=1, decoders=1)
    names = [f"video {number:06d}" for number in range(videos)]
    marks: list[tuple[float, float, float, int]] = []
    counted, waited = 0, 0.0

    def count(_failed: bool) -> None:
        nonlocal counted
        counted += 1

    def wait_and_count(*arguments: Any, **options: Any) -> Any:
        nonlocal waited
        begun = time.perf_counter()
        ended = wait(*arguments, **options)
        waited += time.perf_counter() - begun
        return ended

    def watched(units: Iterator[DoneUnit]) -> Iterator[DoneUnit]:
        process = psutil.Process()
        for done in units:
            now = time.perf_counter()
            marks.append((now, now - waited, time.process_time(), process.memory_info().rss))
            yield done

    with (
        patch.object(dispatch, "wait", wait_and_count),
        tempfile.TemporaryDirectory(dir=_fast_folder()) as folder,
        CacheWriter(folder, header(), shard_videos=SHARD_VIDEOS) as writer,
        RayEngine(options, decoding) as engine,
    ):
        task = SleepingTask(folder, writer.header, writer.run, seconds)
        units = work_units(names, dict.fromkeys(names, "none"), SHARD_VIDEOS)
        publish_units(writer, watched(engine.run(task, units, count)))
    first = len(marks) // 4  # before that workers may still be starting
    wall, own, cpu = ((marks[-1][clock] - marks[first][clock]) / (len(marks) - 1 - first) for clock in (0, 1, 2))
    return Measured(len(marks), wall, own, cpu, marks[len(marks) // 10][3], marks[-1][3], counted)


def header() -> CacheHeader:
    """Return the header of a cache of next to nothing."""
    fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION})
    return CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(fingerprint.fields),
        fingerprint_digest=fingerprint.digest,
        recipe={},
        arrays=(SPEC,),
        software={},
        created="2026-01-01T00:00:00+00:00",
    )


def compare_workers(address: str, units: int, seconds: float) -> Table:
    """Time one worker and two on the same units."""
    one, two = (run(address, videos=units * SHARD_VIDEOS, workers=count, seconds=seconds) for count in (1, 2))
    table = Table(title=f"{units} units of {seconds:g} s each, simulated", title_justify="left")
    for heading in ("model workers", "seconds per unit", "times as fast"):
        table.add_column(heading, justify="right")
    table.add_row("1", f"{one.seconds_per_shard:.3f}", "1.00")
    table.add_row(
        "2",
        f"{two.seconds_per_shard:.3f}",
        f"{one.seconds_per_shard / two.seconds_per_shard:.2f} (at least 1.8 is wanted)",
    )
    return table


def measure_scale(address: str, videos: int) -> Table:
    """Send many videos through the driver, with workers that take no time."""
    measured = run(address, videos=videos, workers=2, seconds=0.0)
    table = Table(
        title=f"{videos:,} videos, {measured.shards:,} shards, workers that take no time", title_justify="left"
    )
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_row(
        "driver's own wall time per shard (under 5 ms is wanted)", f"{measured.driver_seconds_per_shard * 1e3:.2f} ms"
    )
    table.add_row("driver's CPU time per shard", f"{measured.driver_cpu_seconds_per_shard * 1e3:.2f} ms")
    table.add_row("wall time per shard, workers included", f"{measured.seconds_per_shard * 1e3:.2f} ms")
    table.add_row(
        "driver's memory after a tenth, and at the end",
        f"{measured.memory_early / 2**20:.0f}, {measured.memory_late / 2**20:.0f} MiB",
    )
    table.add_row("videos that progress was told of", f"{measured.progress:,}")
    return table


def _fast_folder() -> Path | None:
    """Return a folder in memory where there is one: disks are measured elsewhere."""
    memory = Path("/dev/shm")  # noqa: S108  # a fresh folder in it
    return memory if os.access(memory, os.W_OK) else None


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 units, 3,200 videos")
    parser.add_argument("--only", choices=("workers", "scale"))
    arguments = parser.parse_args()
    quick = arguments.quick
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    console = Console()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 8, "object_store_memory": 80 * 2**20, "include_dashboard": False},
    )
    try:
        if arguments.only != "scale":
            console.print(compare_workers(cluster.address, *((16, 0.3) if quick else (40, 0.5))))
        if arguments.only != "workers":
            console.print(measure_scale(cluster.address, 3_200 if quick else 100_000))
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
