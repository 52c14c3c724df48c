"""Caches of made-up features, in the shapes of the shipped model or small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter

FRAMES = 8
CROPS = 3


def specs(
    *, latent: int = 32, channels: int = 48, multiscale: int = 1024, grid: int = 4, view: int = 128
) -> tuple[ArraySpec, ...]:
    """Return arrays of 8 frames and 3 crops; without arguments, those of the shipped model: 5.8 MB per video.

    Args:
        latent: Side of the latent.
        channels: Of the latent.
        multiscale: Channels of the multiscale maps.
        grid: Side of the multiscale maps.
        view: Side of the view in pixels.
    """
    contents = (
        ("latent", ("channel", "y", "x"), (channels, latent, latent), "float16"),
        ("multiscale", ("channel", "grid_y", "grid_x"), (multiscale, grid, grid), "float16"),
        ("frames", ("y", "x", "rgb"), (view, view, 3), "uint8"),
    )
    return tuple(
        ArraySpec(
            name=f"{branch}/{name}",
            dimensions=("frame", *crop, *dimensions),
            shape=(FRAMES, *([CROPS] if crop else []), *shape),
            dtype=dtype,
            unit="1",
            value_range=None,
            description="made up",
        )
        for branch, crop in (("resize", ()), ("crop", ("crop",)))
        for name, dimensions, shape, dtype in contents
    )


SMALL = specs(latent=8, channels=4, multiscale=16, grid=2, view=16)


def write_cache(folder: Path, arrays: tuple[ArraySpec, ...], videos: int, *, shard_videos: int = 32) -> None:
    """Write a cache of so many videos, each with values of its own."""
    write_entries(folder, arrays, entries(arrays, videos), shard_videos=shard_videos)


def write_entries(
    folder: Path, arrays: tuple[ArraySpec, ...], made: Iterable[ShardEntry], *, shard_videos: int = 32
) -> None:
    """Write a cache of these videos."""
    fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION, "made_up": True})
    header = CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(fingerprint.fields),
        fingerprint_digest=fingerprint.digest,
        recipe={"frames": FRAMES, "crops": CROPS},
        arrays=arrays,
        software={},
        created="2026-01-01T00:00:00+00:00",
    )
    with CacheWriter(folder, header, shard_videos=shard_videos) as writer:
        for entry in made:
            writer.add(entry)


def entries(arrays: tuple[ArraySpec, ...], videos: int) -> Iterator[ShardEntry]:
    """Yield videos as an extraction would."""
    noise = {spec.name: _noise(spec) for spec in arrays}
    for number in range(videos):
        row = VideoRow(
            video_id=f"video-{number:06}",
            status="ok",
            source=SourceStamp(path=f"video-{number:06}.mp4", size=number, mtime_ns=number),
            frame_indices=tuple(range(0, 30 * FRAMES, 30)),
            timestamps=tuple(float(frame) for frame in range(FRAMES)),
            crop_positions=((0, 0),) * CROPS,
            width=1920,
            height=1080,
            decoder="none",
        )
        yield ShardEntry(row, {name: np.roll(values, number) for name, values in noise.items()})


def _noise(spec: ArraySpec) -> NDArray[Any]:
    generator = np.random.default_rng(list(spec.name.encode()))
    if spec.dtype == "uint8":
        return generator.integers(0, 256, spec.shape, np.uint8)
    return generator.normal(size=spec.shape).astype(spec.dtype)
