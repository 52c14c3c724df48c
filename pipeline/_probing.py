"""Measuring a few videos of a data set, to reckon what all of them will take."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffvqa.cache._schema import SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._backbone import Backbone, choose_device, load_backbone
from diffvqa.pipeline._cache_rows import cache_header
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._planning import Probe
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource

if TYPE_CHECKING:
    from diffvqa.cache._schema import CacheHeader
    from diffvqa.pipeline._config import Settings
    from diffvqa.stages._extract_recipe import ExtractRecipe

logger = logging.getLogger(__name__)

_REPEATS = 2
_LONGEST_PROBE_S = 20.0


@dataclass(frozen=True)
class _Cost:
    """Of one view: seconds on the device, floating-point operations; and how many were computed at once."""

    seconds: float
    flops: float
    batch: int


def measure(sources: Sequence[VideoSource], settings: Settings) -> tuple[Probe, CacheHeader]:
    """Decode the videos and compute some of their views, and return what that took, and what features there will be.

    Of a trajectory of many steps, one and two steps are measured, and the rest reckoned from their difference.

    Args:
        sources: A few videos; at least one.
        settings: Recipe and runtime.

    Raises:
        DatasetError: None of the videos can be used.
        ModelFolderError: The model cannot be loaded.
    """
    recipe, device = settings.extract, choose_device(settings.runtime.device)
    decoded, seconds = _decode(sources, settings)
    if not decoded:
        raise DatasetError(
            f"None of the {len(sources)} videos that were tried can be used.", "Give a larger --probe, or mend them."
        )
    is_extrapolated = recipe.steps > _REPEATS
    costs = []
    for steps in (1, 2) if is_extrapolated else (recipe.steps,):
        measured = recipe.model_copy(update={"steps": steps})
        backbone = load_backbone(measured, settings.runtime)
        header = cache_header(measured, backbone)
        costs.append(_cost_of_view(backbone, measured, decoded[0], device))
    seconds_per_view, flops = costs[0].seconds, costs[0].flops
    if is_extrapolated:
        seconds_per_view += (recipe.steps - 1) * max(0.0, costs[1].seconds - costs[0].seconds)
        flops += (recipe.steps - 1) * (costs[1].flops - costs[0].flops)
    probe = Probe(
        videos=len(sources),
        failed=len(sources) - len(decoded),
        decode_seconds=statistics.mean(seconds),
        view_seconds=seconds_per_view,
        view_flops=flops,
        write_seconds=_write_seconds(header),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        batch=costs[0].batch,
        is_extrapolated=is_extrapolated,
    )
    return probe, header


def _decode(sources: Sequence[VideoSource], settings: Settings) -> tuple[list[DecodedVideo], list[float]]:
    """Return the videos that can be used, and the seconds that one decoder took for each of all."""
    runtime = settings.runtime
    decoded, seconds = [], []
    with DecodePool(settings.extract, workers=1, timeout=runtime.decode_timeout, memory=runtime.decode_memory) as pool:
        list(pool.run(sources[:1]))  # the process starts and imports
        for source in sources:
            begun = time.perf_counter()
            (result,) = pool.run([source])
            seconds.append(time.perf_counter() - begun)
            if isinstance(result, FailedVideo):
                logger.warning("%s: %s, %s", source.video_id, result.reason, result.detail)
            else:
                decoded.append(result)
    return decoded, seconds


def _cost_of_view(backbone: Backbone, recipe: ExtractRecipe, video: DecodedVideo, device: torch.device) -> _Cost:
    """Time batches of views, as large as extraction has them unless one view alone already takes long."""
    from torch.utils.flop_counter import FlopCounterMode

    extractor = backbone.extractor
    views = np.concatenate([video.resize, video.crop.reshape(-1, *video.crop.shape[2:])])

    def compute(count: int, around: AbstractContextManager[object]) -> float:
        batch = np.resize(views, (count, *views.shape[1:]))
        begun = time.perf_counter()
        with around:
            extractor(batch, list(range(count)))
        return time.perf_counter() - begun

    counter = FlopCounterMode(display=False)
    alone = compute(1, counter)
    flops = float(counter.get_total_flops())
    size = extractor.batch_size(recipe.view_size)
    batch = max(1, min(size, int(_LONGEST_PROBE_S / max(alone, 1e-9))))
    compute(batch, nullcontext())
    took = min(compute(batch, nullcontext()) for _ in range(_REPEATS))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return _Cost(took / batch, flops, batch)


def _write_seconds(header: CacheHeader) -> float:
    """Return the seconds that checking, encoding and writing one video's features takes on this machine's disk."""
    rng = np.random.default_rng(0)
    arrays = {
        spec.name: rng.integers(0, 256, (*spec.shape, np.dtype(spec.dtype).itemsize), np.uint8)
        .view(spec.dtype)
        .reshape(spec.shape)
        for spec in header.arrays
    }
    row = VideoRow(video_id="probe", status="ok", source=SourceStamp(path="", size=0, mtime_ns=0))
    with tempfile.TemporaryDirectory() as folder, CacheWriter(Path(folder), header, shard_videos=1) as writer:
        begun = time.perf_counter()
        writer.add(ShardEntry(row, arrays))
        return time.perf_counter() - begun
