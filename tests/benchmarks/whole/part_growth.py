"""How cost grows: with videos, frames, crops and tokens, as exponents of a power law, and the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .. import cache_memory, scan
from .clips import make_clips
from .figures import Measured, Panel, PartResult, Row, Target, megabytes, seconds
from .measuring import start_without_transformers
from .options import Options

_EXTRACT_ONCE = f"{__package__}.extract_once"
_LINEAR = 1.1
_TASKS = ("write", "verify", "stream")
_WIDTH = 64


@dataclass(frozen=True)
class Point:
    """What one size cost: seconds, and bytes held at most."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Axis:
    """Something that is made larger.

    Attributes:
        name: What grows.
        sizes: From the smallest to the largest.
        cost: Of one size.
    """

    name: str
    sizes: tuple[int, ...]
    cost: Callable[[int], Point]


def measure(options: Options) -> PartResult:
    """Take every size of every axis, all in each round."""
    start_without_transformers()  # which takes a fifth of the many starts
    clip = make_clips(options.folder, 1, size="160x120" if options.quick else "960x540")[0]
    found: dict[str, list[list[Point]]] = {}
    axes = (*extraction_axes(clip, options), token_axis(options))
    for _ in range(options.rounds):
        for axis in axes:
            found.setdefault(axis.name, []).append([axis.cost(size) for size in axis.sizes])
        for name, points in cache_points(options).items():
            found.setdefault(name, []).append(points)
    sizes = {axis.name: axis.sizes for axis in axes} | {f"videos: {task}": videos_of(options) for task in _TASKS}
    exponents = {name: exponent_of(sizes[name], rounds) for name, rounds in found.items()}
    rows = tuple(
        Row(
            name=f"{name}, {sizes[name][0]:,} to {sizes[name][-1]:,}",
            cells=(
                exponents[name],
                seconds([points[0].seconds for points in rounds]),
                seconds([points[-1].seconds for points in rounds]),
                megabytes([points[0].memory for points in rounds]),
                megabytes([points[-1].memory for points in rounds]),
            ),
        )
        for name, rounds in found.items()
    )
    panel = Panel(
        title="time grows with the size to the power of the exponent, fitted over all sizes; 1 is linear",
        columns=("what grows", "exponent", "time, least", "time, most", "memory, least", "memory, most"),
        rows=rows,
        note=f"Sizes: {_listed(sizes)}. "
        "Each in a process of its own, whose start and imports are left out of the time and part of the memory (of the "
        f"tokens' memory only what the mixer adds). Tokens: one sequence, width {_WIDTH}, forward, backward. Videos: "
        "caches of 49 kB a video. Small sizes carry what is done once, so that exponents under 1 are the rule.",
    )
    return PartResult(
        panels=(panel,),
        targets=tuple(
            Target(claim=f"exponent of {name}", measured=found_exponent, bound=_LINEAR)
            for name, found_exponent in exponents.items()
        ),
    )


def extraction_axes(clip: Path, options: Options) -> tuple[Axis, ...]:
    """Return extraction of one clip with more and more frames, and crops."""
    frames = (2, 4) if options.quick else (4, 16, 64)

    def extract(key: str, size: int) -> Point:
        settings = [f"{name}={value}" for name, value in {**options.recipe, key: size}.items()]
        done = subprocess.run(
            [sys.executable, "-m", _EXTRACT_ONCE, str(clip), *settings], check=True, capture_output=True, text=True
        )
        cost = json.loads(done.stdout)
        return Point(cost["seconds"], cost["memory"])

    axes = (
        Axis("frames extracted", frames, lambda size: extract("extract.frames", size)),
        Axis("crops extracted", (1, 5, 20), lambda size: extract("extract.crops", size)),
    )
    return axes[:1] if options.quick else axes


def token_axis(options: Options) -> Axis:
    """Return one Mamba mixer on longer and longer sequences."""

    def mix(tokens: int) -> Point:
        measured = scan.in_own_process("ours", (1, tokens, _WIDTH), 2)
        return Point(measured.seconds, max(1, measured.bytes))

    return Axis("tokens mixed", (256, 1024) if options.quick else (256, 2048, 16_384), mix)


def videos_of(options: Options) -> tuple[int, ...]:
    """Return the numbers of videos."""
    return (10, 100) if options.quick else (10, 300, 10_000)


def cache_points(options: Options) -> dict[str, list[Point]]:
    """Return what writing, verifying and streaming caches of more and more videos takes."""
    found: dict[str, list[Point]] = {f"videos: {task}": [] for task in _TASKS}
    for videos in videos_of(options):
        with TemporaryDirectory(dir=options.folder) as folder:
            for task in _TASKS:
                cost = cache_memory.cost_of(task, Path(folder), videos)
                found[f"videos: {task}"].append(Point(cost.seconds, cost.peak))
    return found


def exponent_of(sizes: Sequence[int], rounds: Sequence[Sequence[Point]]) -> Measured:
    """Return the slope of log time over log size, of each round."""
    slopes = [np.polyfit(np.log(sizes), np.log([point.seconds for point in points]), 1)[0] for points in rounds]
    return Measured(values=tuple(float(slope) for slope in slopes))


def _listed(sizes: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"{name} {', '.join(f'{size:,}' for size in each)}" for name, each in sizes.items())
