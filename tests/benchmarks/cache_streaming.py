"""How fast a cache streams, gives single videos and is written, beside ``np.memmap``, HDF5 and ``.npy`` per frame.

All of them hold the same bytes. Everything is read cold: before each reading the files are dropped from the page cache,
as in a cache that is larger than its share of the memory. Every reader gives each video as arrays in memory, in the
order of the disk or at random. Writing ends when the system has been told to bring everything to the disk. The ratios
come from one run, one way after the other in each round; the medians over the rounds count. Exit status 1: a target is
missed (``--quick`` is too small to tell).

    python -m tests.benchmarks.cache_streaming [--quick] [--megabytes 600] [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from diffvqa.cache._layout import video_length
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import ArraySpec
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._streaming import FeatureStream

from .synthetic_cache import FRAMES, entries, specs, write_entries

Videos = Iterator[Mapping[str, NDArray[Any]]]
SHARE_OF_MEMMAP = 0.7
TIMES_NPY = 5.0
SINGLES = 20
MEMMAP, NPY, CACHE = "np.memmap", ".npy per frame", "cache"


@dataclass(frozen=True)
class Way:
    """One way to keep features.

    Attributes:
        place: Folder of its files.
        write: Writes them all, from memory, into that folder, which is absent.
        stream: Yields all videos.
        opened: Opens what there is to open, and returns what returns one video by its id.
    """

    place: Path
    write: Callable[[Path], None]
    stream: Callable[[], Videos]
    opened: Callable[[], Callable[[str], Mapping[str, NDArray[Any]]]]


@dataclass(frozen=True)
class Speeds:
    """What every way does, a value for each round.

    Attributes:
        videos: How many were written and read.
        size: Their bytes.
        array_sizes: Array to its bytes in one video.
        write: Way to bytes per second.
        stream: Way to bytes per second.
        single: Way to seconds for a video at random, each the median of several.
    """

    videos: int
    size: int
    array_sizes: dict[str, int]
    write: dict[str, list[float]]
    stream: dict[str, list[float]]
    single: dict[str, list[float]]


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
        met = show(measure(Path(folder), options.megabytes * 10**6, options.rounds))
    return 0 if met or options.quick else 1


def measure(folder: Path, size: int, rounds: int) -> Speeds:
    """Write the same features in every way, then read each in each round."""
    arrays = specs()
    videos = max(2, size // sum(map(video_length, arrays)))
    made = list(entries(arrays, videos))
    written = {entry.row.video_id: dict(entry.arrays or {}) for entry in made}
    size = sum(array.nbytes for video in written.values() for array in video.values())
    ways = ways_to_keep(folder, arrays, made)
    write: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            place = way.place if number == rounds - 1 else folder / f"{way.place.name}-{number}"
            write[name].append(size / seconds_to_write(way, place))
            if place != way.place:
                shutil.rmtree(place)
    cache = FeatureCache(ways[CACHE].place)
    streams = {name: (way.stream, way.place) for name, way in ways.items()}
    streams["cache, shuffled"] = (lambda: iter(FeatureStream(cache, seed=0)), ways[CACHE].place)
    streams["cache, id by id"] = (lambda: (dict(cache[each]) for each in cache.ids()), ways[CACHE].place)
    stream: dict[str, list[float]] = {name: [] for name in streams}
    single: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, (read, place) in streams.items():
            stream[name].append(cold_speed(read, place, videos))
        for name, way in ways.items():
            single[name].append(single_read(way, list(written), seed=number))
    return Speeds(videos, size, {spec.name: video_length(spec) for spec in arrays}, write, stream, single)


def ways_to_keep(folder: Path, arrays: tuple[ArraySpec, ...], made: list[ShardEntry]) -> dict[str, Way]:
    """Return the ways that are compared, by name."""
    written = {entry.row.video_id: dict(entry.arrays or {}) for entry in made}
    numbers = {video_id: number for number, video_id in enumerate(written)}
    mapped, in_h5, in_npy, in_cache = (folder / name for name in ("memmap", "h5", "npy", "cache"))
    return {
        MEMMAP: Way(
            mapped,
            lambda place: write_memmaps(place, arrays, written),
            lambda: memmap_videos(mapped, arrays, range(len(written))),
            lambda: lambda video_id: next(memmap_videos(mapped, arrays, [numbers[video_id]])),
        ),
        "HDF5": Way(
            in_h5,
            lambda place: write_h5(place, arrays, written),
            lambda: h5_videos(in_h5, range(len(written))),
            lambda: one_of_h5(in_h5, numbers),
        ),
        NPY: Way(
            in_npy,
            lambda place: write_npy(place, written),
            lambda: npy_videos(in_npy, arrays, written),
            lambda: lambda video_id: next(npy_videos(in_npy, arrays, [video_id])),
        ),
        CACHE: Way(
            in_cache,
            lambda place: write_entries(place, arrays, made),
            lambda: iter(FeatureStream(FeatureCache(in_cache))),
            lambda: one_of_cache(FeatureCache(in_cache)),
        ),
    }


def seconds_to_write(way: Way, place: Path) -> float:
    """Write everything and wait until the disk has it."""
    os.sync()
    begun = time.perf_counter()
    way.write(place)
    os.sync()
    return time.perf_counter() - begun


def write_memmaps(
    folder: Path, arrays: tuple[ArraySpec, ...], written: Mapping[str, Mapping[str, NDArray[Any]]]
) -> None:
    """Write one ``.npy`` file per array."""
    folder.mkdir()
    for spec in arrays:
        shape = (len(written), *spec.shape)
        target = np.lib.format.open_memmap(memmap_file(folder, spec.name), "w+", spec.dtype, shape)
        for number, video in enumerate(written.values()):
            target[number] = video[spec.name]
        target.flush()


def write_h5(folder: Path, arrays: tuple[ArraySpec, ...], written: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Write one HDF5 file with a data set per array, without compression, in one piece."""
    folder.mkdir()
    with h5py.File(folder / "features.h5", "w") as file:
        targets = {
            spec.name: file.create_dataset(spec.name, (len(written), *spec.shape), spec.dtype) for spec in arrays
        }
        for number, video in enumerate(written.values()):
            for name, array in video.items():
                targets[name][number] = array


def write_npy(folder: Path, written: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Write one ``.npy`` file per frame and array."""
    for video_id, video in written.items():
        for name, array in video.items():
            parent = folder / video_id / name
            parent.mkdir(parents=True)
            for frame, values in enumerate(array):
                np.save(parent / f"{frame}.npy", values)


def memmap_file(folder: Path, array: str) -> Path:
    """Return where an array lies as a single file."""
    return folder / f"{array.replace('/', '-')}.npy"


def memmap_videos(folder: Path, arrays: tuple[ArraySpec, ...], numbers: Iterable[int]) -> Videos:
    """Yield videos out of memory maps."""
    maps = {spec.name: np.load(memmap_file(folder, spec.name), mmap_mode="r") for spec in arrays}
    for number in numbers:
        yield {name: np.array(values[number]) for name, values in maps.items()}


def h5_videos(folder: Path, numbers: Iterable[int]) -> Videos:
    """Yield videos out of an HDF5 file."""
    with h5py.File(folder / "features.h5") as file:
        arrays = {f"{branch}/{name}": array for branch, group in file.items() for name, array in group.items()}
        for number in numbers:
            yield {name: array[number] for name, array in arrays.items()}


def one_of_h5(folder: Path, numbers: Mapping[str, int]) -> Callable[[str], Mapping[str, NDArray[Any]]]:
    """Open an HDF5 file, and return what reads one video."""
    file = h5py.File(folder / "features.h5")
    arrays = {f"{branch}/{name}": array for branch, group in file.items() for name, array in group.items()}
    return lambda video_id: {name: array[numbers[video_id]] for name, array in arrays.items()}


def one_of_cache(cache: FeatureCache) -> Callable[[str], Mapping[str, NDArray[Any]]]:
    """Return what reads one video of a cache."""
    return lambda video_id: dict(cache[video_id])


def npy_videos(folder: Path, arrays: tuple[ArraySpec, ...], video_ids: Iterable[str]) -> Videos:
    """Yield videos out of a file per frame and array."""
    for video_id in video_ids:
        yield {
            spec.name: np.stack([np.load(folder / video_id / spec.name / f"{frame}.npy") for frame in range(FRAMES)])
            for spec in arrays
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


def single_read(way: Way, video_ids: list[str], seed: int) -> float:
    """Return the median seconds that one video at random takes out of what is open already."""
    read = way.opened()
    drop_from_page_cache(way.place)
    times = []
    for video_id in np.random.default_rng(seed).permutation(video_ids)[:SINGLES]:
        begun = time.perf_counter()
        read(str(video_id))
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def drop_from_page_cache(place: Path) -> None:
    """Make the next reading of these files come from the disk."""
    for path in place.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def show(speeds: Speeds) -> bool:
    """Print the speeds and their ratios, and say whether the targets are met."""
    medians = {name: statistics.median(values) for name, values in speeds.stream.items()}
    title = f"{speeds.videos} videos, {speeds.size / 1e6:.0f} MB, cold, median of {len(speeds.stream[CACHE])}"
    table = Table(
        "way", "MB/s", "of np.memmap", "times .npy per frame", "one at random, ms", "written, MB/s", title=title
    )
    for name, speed in medians.items():
        single = f"{statistics.median(speeds.single[name]) * 1e3:.1f}" if name in speeds.single else ""
        write = f"{statistics.median(speeds.write[name]) / 1e6:.0f}" if name in speeds.write else ""
        ratios = f"{speed / medians[MEMMAP]:.0%}", f"{speed / medians[NPY]:.1f}"
        table.add_row(name, f"{speed / 1e6:.0f}", *ratios, single, write)
    of_memmap, times_npy = medians[CACHE] / medians[MEMMAP], medians[CACHE] / medians[NPY]
    met = of_memmap >= SHARE_OF_MEMMAP and times_npy >= TIMES_NPY
    Console().print(table)
    Console().print(
        f"cache: {of_memmap:.0%} of np.memmap (target {SHARE_OF_MEMMAP:.0%}), "
        f"{times_npy:.1f} times .npy per frame (target {TIMES_NPY:g}): {'met' if met else 'MISSED'}"
    )
    return met


if __name__ == "__main__":
    sys.exit(main())
