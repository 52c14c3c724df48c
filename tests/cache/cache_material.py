"""A small cache, made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter

MOST_FRAMES = 4
SPECS = (
    ArraySpec(
        name="resize/latent",
        dimensions=("frame", "channel", "y", "x"),
        shape=(MOST_FRAMES, 3, 2, 2),
        dtype="float16",
        unit="1",
        value_range=None,
        description="a latent",
    ),
    ArraySpec(
        name="crop/frames",
        dimensions=("frame", "crop", "y", "x", "rgb"),
        shape=(MOST_FRAMES, 2, 4, 4, 3),
        dtype="uint8",
        unit="1",
        value_range=(0, 255),
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


def arrays_of(video_id: str, frames: int = MOST_FRAMES, crops: int = 2) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(list(video_id.encode()))
    return {
        "resize/latent": rng.normal(size=(frames, 3, 2, 2)).astype(np.float16),
        "crop/frames": rng.integers(0, 256, (frames, crops, 4, 4, 3), np.uint8),
    }


def usable(video_id: str, *, frames: int = MOST_FRAMES, crops: int = 2, path: Path | None = None) -> ShardEntry:
    row = VideoRow(
        video_id=video_id,
        status="ok",
        source=SourceStamp.of(path or Path("absent")),
        frame_indices=tuple(range(frames)),
        timestamps=tuple(0.5 * index for index in range(frames)),
    )
    return ShardEntry(row, arrays_of(video_id, frames, crops))


def failed(video_id: str, reason: str = "empty") -> ShardEntry:
    return ShardEntry(
        VideoRow(video_id=video_id, status="failed", reason=reason, source=SourceStamp.of(Path("absent"))), None
    )


def fill(directory: Path | str, *entries: ShardEntry, shard_videos: int = 2) -> None:
    with CacheWriter(directory, header(), shard_videos=shard_videos) as writer:
        for entry in entries:
            writer.add(entry)


def mark_files(directory: Path) -> list[Path]:
    """The marks, in the order of writing."""
    return sorted((directory / "shards").glob("*.json"))


def digests(location: Path | str) -> dict[str, dict[str, str]]:
    """Video id -> array name -> digest, as the marks have them."""
    cache = FeatureCache(location)
    return {video_id: cache[video_id].row.digests for video_id in cache.ids()}


def data_files(directory: Path, array: str) -> list[Path]:
    """The files with the chunks of an array, one per shard."""
    return sorted(path for path in (directory / "shards").glob(f"*.zarr/{array}/c/**/*") if path.is_file())
