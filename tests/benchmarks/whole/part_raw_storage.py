"""The cache against raw storage: streaming and random reads, writing, and the bytes of a video."""

from __future__ import annotations

from .. import cache_streaming
from ..cache_streaming import CACHE, MEMMAP, NPY, SHARE_OF_MEMMAP, TIMES_NPY
from .figures import Measured, Panel, PartResult, Row, Target, count, megabytes
from .options import Options


def measure(options: Options) -> PartResult:
    """Write and read the same features in every way."""
    megabytes_written = 30 if options.quick else 300
    speeds = cache_streaming.measure(options.folder, megabytes_written * 10**6, options.rounds)
    stream = {name: _speed(values) for name, values in speeds.stream.items()}
    rows = tuple(
        Row(
            name=name,
            cells=(
                found,
                found.over(stream[MEMMAP]),
                found.over(stream[NPY]),
                Measured(values=tuple(speeds.single[name]), unit="s").times(1e3, "ms")
                if name in speeds.single
                else None,
                _speed(speeds.write[name]) if name in speeds.write else None,
            ),
        )
        for name, found in stream.items()
    )
    headings = ("way", "all, in order", "of np.memmap", "of .npy per frame", "one video at random", "writing")
    read = Panel(
        title=f"{speeds.videos} videos, {speeds.size / 1e6:.0f} MB, read cold; writing until the disk has it",
        columns=headings,
        rows=rows,
        note="The cache checks a checksum of every array it reads, and a SHA-256 of every video it writes; the others "
        "check nothing.",
    )
    whole = sum(speeds.array_sizes.values())
    sizes = Panel(
        title="bytes of a video: 8 frames, 3 crops, the shipped model",
        columns=("array", "size", "share"),
        rows=tuple(
            Row(name=name, cells=(megabytes([size]), count(100 * size / whole).model_copy(update={"unit": "%"})))
            for name, size in speeds.array_sizes.items()
        ),
        note="What each storage setting costs in accuracy is in [quality.md](quality.md).",
    )
    of_memmap, of_npy = stream[CACHE].over(stream[MEMMAP]), stream[CACHE].over(stream[NPY])
    return PartResult(
        panels=(read, sizes),
        targets=(
            Target(claim="streaming, of np.memmap's speed", measured=of_memmap, bound=SHARE_OF_MEMMAP, at_most=False),
            Target(claim="streaming, of the speed of .npy files", measured=of_npy, bound=TIMES_NPY, at_most=False),
        ),
    )


def _speed(values: list[float]) -> Measured:
    return Measured(values=tuple(value / 1e6 for value in values), unit="MB/s")
