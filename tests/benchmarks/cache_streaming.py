"""How fast a whole cache streams from the disk, beside ``np.memmap`` over the same bytes and a ``.npy`` file per frame.

Everything is read cold: before each reading the files are dropped from the page cache, as in a cache that is larger
than its share of the memory. Every reader gives each video as arrays in memory, in the order of the disk. The ratios
come from one run, reader after reader in each round; the medians over the rounds count. Exit status 1: a target is
missed (``--quick`` is too small to tell).

    python -m tests.benchmarks.cache_streaming [--quick] [--megabytes 600] [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from diffvqa.cache._layout import video_length
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._streaming import FeatureStream

from .synthetic_cache import FRAMES, specs, write_cache

Videos = Iterator[Mapping[str, NDArray[Any]]]
SHARE_OF_MEMMAP = 0.7
TIMES_NPY = 5.0
SINGLES = 20


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 MB, once")
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder by default")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.rounds = 60, 1
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        met = measure(Path(folder), options.megabytes * 10**6, options.rounds)
    return 0 if met or options.quick else 1


def measure(folder: Path, size: int, rounds: int) -> bool:
    """Write the same features in three ways, read each in each round, print the ratios, say whether they are met."""
    arrays = specs()
    videos = max(2, size // sum(map(video_length, arrays)))
    write_cache(folder / "cache", arrays, videos)
    cache = FeatureCache(folder / "cache")
    write_copies(cache, folder)
    os.sync()
    readers: dict[str, tuple[Callable[[], Videos], Path]] = {
        "np.memmap": (lambda: memmap_videos(folder / "memmap", cache), folder / "memmap"),
        "stream": (lambda: iter(FeatureStream(cache)), folder / "cache"),
        "stream, shuffled": (lambda: iter(FeatureStream(cache, seed=0)), folder / "cache"),
        "cache, id by id": (lambda: (dict(cache[video_id]) for video_id in cache.ids()), folder / "cache"),
        ".npy per frame": (lambda: npy_videos(folder / "npy", cache), folder / "npy"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, (read, place) in readers.items():
            speeds[name].append(cold_speed(read, place, videos))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    show(medians, f"{videos} videos, {videos * sum(map(video_length, arrays)) / 1e6:.0f} MB, cold, median of {rounds}")
    Console().print(f"one video at random, cold: {single_read(cache, folder / 'cache') * 1e3:.1f} ms")
    of_memmap, times_npy = medians["stream"] / medians["np.memmap"], medians["stream"] / medians[".npy per frame"]
    met = of_memmap >= SHARE_OF_MEMMAP and times_npy >= TIMES_NPY
    Console().print(
        f"stream: {of_memmap:.0%} of np.memmap (target {SHARE_OF_MEMMAP:.0%}), "
        f"{times_npy:.1f} times .npy per frame (target {TIMES_NPY:g}): {'met' if met else 'MISSED'}"
    )
    return met


def write_copies(cache: FeatureCache, folder: Path) -> None:
    """Write the cache's features as one ``.npy`` per array and as one per frame and array."""
    (folder / "memmap").mkdir()
    targets = {
        spec.name: np.lib.format.open_memmap(
            memmap_file(folder / "memmap", spec.name), "w+", spec.dtype, (len(cache), *spec.shape)
        )
        for spec in cache.header.arrays
    }
    for number, video in enumerate(FeatureStream(cache)):
        for name, array in video.items():
            targets[name][number] = array
            parent = folder / "npy" / video.row.video_id / name
            parent.mkdir(parents=True)
            for frame, values in enumerate(array):
                np.save(parent / f"{frame}.npy", values)
    for target in targets.values():
        target.flush()


def memmap_file(folder: Path, array: str) -> Path:
    """Return where an array lies as a single file."""
    return folder / f"{array.replace('/', '-')}.npy"


def memmap_videos(folder: Path, cache: FeatureCache) -> Videos:
    """Yield the videos out of memory maps."""
    maps = {spec.name: np.load(memmap_file(folder, spec.name), mmap_mode="r") for spec in cache.header.arrays}
    for number in range(len(cache)):
        yield {name: np.array(values[number]) for name, values in maps.items()}


def npy_videos(folder: Path, cache: FeatureCache) -> Videos:
    """Yield the videos out of a file per frame and array."""
    names = [spec.name for spec in cache.header.arrays]
    for video_id in cache.ids():
        yield {
            name: np.stack([np.load(folder / video_id / name / f"{frame}.npy") for frame in range(FRAMES)])
            for name in names
        }


def cold_speed(read: Callable[[], Videos], place: Path, videos: int) -> float:
    """Return the bytes per second of a reader whose files are not in the page cache."""
    drop_from_page_cache(place)
    begun, size, count = time.perf_counter(), 0, 0
    for video in read():
        size += sum(array.nbytes for array in video.values())
        count += 1
    if count != videos:
        raise RuntimeError(f"{count} of {videos} videos were read")
    return size / (time.perf_counter() - begun)


def single_read(cache: FeatureCache, place: Path) -> float:
    """Return the median seconds that one video at random takes."""
    drop_from_page_cache(place)
    times = []
    for video_id in np.random.default_rng(0).permutation(cache.ids())[:SINGLES]:
        begun = time.perf_counter()
        dict(cache[str(video_id)])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def drop_from_page_cache(place: Path) -> None:
    """Make the next reading of these files come from the disk."""
    for path in place.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def show(speeds: Mapping[str, float], title: str) -> None:
    """Print the speeds and their ratios."""
    table = Table("reader", "MB/s", "of np.memmap", "times .npy per frame", title=title)
    for name, speed in speeds.items():
        table.add_row(
            name,
            f"{speed / 1e6:.0f}",
            f"{speed / speeds['np.memmap']:.0%}",
            f"{speed / speeds['.npy per frame']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
