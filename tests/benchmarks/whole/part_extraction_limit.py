"""Extraction against its own limit: decode and model alone, spread over all cores; on a GPU, pure model time."""

from __future__ import annotations

import os

from diffvqa.pipeline._config import resolve_settings

from .. import extraction
from .clips import make_clips
from .figures import Measured, Panel, PartResult, Row, Target, count, seconds
from .options import Options

_OF_ALL_CORES_BUSY = 1.15
_OF_PURE_MODEL_TIME = 1.10


def measure(options: Options) -> PartResult:
    """Run each part of an extraction alone and then the whole, in every round."""
    videos, size, length = (2, "160x120", 1) if options.quick else (8, "960x540", 8)
    clips = make_clips(options.folder / "clips", videos, size=size, seconds=length)
    settings = resolve_settings(None, {"runtime.runs": options.folder, **options.recipe})
    costs = extraction.measure(clips, settings, options.rounds)
    cores = len(os.sched_getaffinity(0))
    whole = seconds([cost.whole.wall for cost in costs])
    busy = seconds([(cost.decode.cpu + cost.model.cpu) / cores for cost in costs])
    pure = seconds([cost.model.device or cost.model.wall for cost in costs])
    has_gpu = any(cost.model.device for cost in costs)
    first = costs[0]
    parts = Panel(
        title=f"{videos} clips of {length} s, {size}: {first.frames} frames, {first.views} views, {cores} cores",
        columns=("part", "wall", "CPU"),
        rows=tuple(
            Row(
                name=name,
                cells=(
                    seconds([getattr(cost, field).wall for cost in costs]),
                    seconds([getattr(cost, field).cpu for cost in costs]),
                ),
            )
            for name, field in (
                ("decode alone", "decode"),
                ("model alone", "model"),
                ("write alone", "write"),
                ("extraction", "whole"),
            )
        ),
        note="The loading of the model is left out.",
    )
    share = Measured(
        values=tuple(c.flops_per_view * c.views / (c.model.device or c.model.wall) / c.peak for c in costs), unit="x"
    )
    limits = Panel(
        title="against the limits",
        columns=("ratio", "figure"),
        rows=(
            Row(name="extraction / decode and model on all cores", cells=(whole.over(busy),)),
            Row(name="extraction / pure model time", cells=(whole.over(pure),)),
            Row(name="model, of the measured peak of a matrix product", cells=(share,)),
            Row(name="GFLOP of a view", cells=(count(first.flops_per_view / 1e9),)),
        ),
    )
    if has_gpu:
        target = Target(claim="extraction / pure model time", measured=whole.over(pure), bound=_OF_PURE_MODEL_TIME)
    else:
        claim = "extraction / decode and model on all cores"
        target = Target(claim=claim, measured=whole.over(busy), bound=_OF_ALL_CORES_BUSY)
    return PartResult(panels=(parts, limits), targets=(target,))
