"""Writing a shard: whole, checked, published atomically, then marked done."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache.atomic import atomic_write_text, reporting_output_errors
from diffvqa.cache.layout import create_array, data_file, encode_videos
from diffvqa.cache.schema import SCHEMA_VERSION, ArraySpec, ShardMark, VideoRow

SHARDS_FOLDER = "shards"
MARK_SUFFIX = ".json"
DATA_SUFFIX = ".zarr"
_UNFINISHED_PREFIX = ".unfinished-"


@dataclass(frozen=True)
class ShardEntry:
    """One video on its way into a shard.

    Attributes:
        row: What is known of it; its digests are filled in on writing.
        arrays: Array name -> (frames, ...) array, or None for a video that failed.
    """

    row: VideoRow
    arrays: Mapping[str, NDArray[Any]] | None


def write_shard(directory: Path, number: int, entries: Sequence[ShardEntry], specs: Sequence[ArraySpec]) -> None:
    """Write one shard of the cache in ``directory``; when this returns, its rows exist and are on disk.

    Args:
        directory: The cache.
        number: Orders the shards: of two rows of one video the one in the later shard counts.
        entries: The videos, in the order in which they are to be stored.
        specs: The arrays that every usable video has.

    Raises:
        OutputError: The disk is full or not writable; nothing incomplete is left behind for readers.
        ValueError: An entry's arrays are not those of ``specs``.
    """
    shards = directory / SHARDS_FOLDER
    name = f"{number:06d}-{uuid.uuid4().hex[:8]}"
    unfinished = shards / f"{_UNFINISHED_PREFIX}{name}"
    usable = [entry for entry in entries if entry.arrays is not None]
    try:
        with reporting_output_errors(shards):
            unfinished.mkdir(parents=True)
            for spec in specs if usable else ():
                _write_array(unfinished, spec, [_checked(entry, spec) for entry in usable])
            _flush_to_disk(unfinished)
            unfinished.rename(shards / f"{name}{DATA_SUFFIX}")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    mark = ShardMark(schema_version=SCHEMA_VERSION, rows=tuple(_with_digests(entry) for entry in entries))
    atomic_write_text(shards / f"{name}{MARK_SUFFIX}", mark.model_dump_json() + "\n")


def remove_unmarked(directory: Path) -> int:
    """Remove what interrupted writers left behind and return how many shards it was; only the writer may call this."""
    shards = directory / SHARDS_FOLDER
    leftovers = [
        path
        for path in (shards.iterdir() if shards.is_dir() else ())
        if path.name.startswith(".") or (path.suffix == DATA_SUFFIX and not path.with_suffix(MARK_SUFFIX).is_file())
    ]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return len(leftovers)


def digest_of(array: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of an array's bytes, little-endian, C order."""
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.data).hexdigest()


def _checked(entry: ShardEntry, spec: ArraySpec) -> NDArray[Any]:
    assert entry.arrays is not None  # noqa: S101  # the caller passes usable entries only
    array = entry.arrays[spec.name]
    if array.shape[1:] != spec.shape[1:] or not 1 <= array.shape[0] <= spec.shape[0] or array.dtype != spec.dtype:
        raise ValueError(
            f"{entry.row.video_id}: {spec.name} is {array.dtype}{array.shape}, expected {spec.dtype}{spec.shape}"
        )
    return array


def _write_array(shard: Path, spec: ArraySpec, videos: Sequence[NDArray[Any]]) -> None:
    create_array(shard, spec, len(videos))
    file = shard / data_file(spec)
    file.parent.mkdir(parents=True)
    file.write_bytes(encode_videos(spec, videos))


def _with_digests(entry: ShardEntry) -> VideoRow:
    digests = {name: digest_of(array) for name, array in (entry.arrays or {}).items()}
    return entry.row.model_copy(update={"digests": digests})


def _flush_to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
