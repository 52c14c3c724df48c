"""A small cache, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache.fingerprint import Fingerprint
from diffvqa.cache.schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache.shards import ShardEntry
from diffvqa.cache.writer import CacheWriter

MOST_FRAMES = 4
SPECS = (
    ArraySpec(
        name="resize/latent",
        dimensions=("frame", "channel", "y", "x"),
        shape=(MOST_FRAMES, 3, 2, 2),
        dtype="float16",
        description="a latent",
    ),
    ArraySpec(
        name="crop/frames",
        dimensions=("frame", "crop", "y", "x", "rgb"),
        shape=(MOST_FRAMES, 2, 4, 4, 3),
        dtype="uint8",
        description="pixels",
    ),
)


def header(**fields: int) -> CacheHeader:
    fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION, "frames": MOST_FRAMES, **fields})
    return CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(fingerprint.fields),
        fingerprint_digest=fingerprint.digest,
        recipe={"frames": MOST_FRAMES},
        arrays=SPECS,
        software={"diffvqa": "0"},
        created="2026-01-01T00:00:00+00:00",
    )


def arrays_of(video_id: str, frames: int = MOST_FRAMES) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(list(video_id.encode()))
    return {
        "resize/latent": rng.normal(size=(frames, 3, 2, 2)).astype(np.float16),
        "crop/frames": rng.integers(0, 256, (frames, 2, 4, 4, 3), np.uint8),
    }


def usable(video_id: str, *, frames: int = MOST_FRAMES, path: Path | None = None) -> ShardEntry:
    row = VideoRow(
        video_id=video_id,
        status="ok",
        source=SourceStamp.of(path or Path("absent")),
        frame_indices=tuple(range(frames)),
        timestamps=tuple(0.5 * index for index in range(frames)),
    )
    return ShardEntry(row, arrays_of(video_id, frames))


def failed(video_id: str, reason: str = "empty") -> ShardEntry:
    return ShardEntry(
        VideoRow(video_id=video_id, status="failed", reason=reason, source=SourceStamp.of(Path("absent"))), None
    )


def fill(directory: Path, *entries: ShardEntry, shard_videos: int = 2) -> None:
    with CacheWriter(directory, header(), shard_videos=shard_videos) as writer:
        for entry in entries:
            writer.add(entry)


def data_files(directory: Path, array: str) -> list[Path]:
    """The files with the chunks of an array, one per shard."""
    return sorted(path for path in (directory / "shards").glob(f"*.zarr/{array}/c/**/*") if path.is_file())
