"""Making a cache again from our own HDF5 export."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from diffvqa.cache._errors import CacheCorruptError, ImportFileError, SchemaTooNewError
from diffvqa.cache._export import Progress, no_progress
from diffvqa.cache._export_h5 import H5_FORMAT
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SCHEMA_VERSION, CacheHeader, VideoRow
from diffvqa.cache._shards import ShardEntry, digest_of
from diffvqa.cache._writer import CacheWriter

_UPGRADE = "Upgrade diffvqa."
_EXPORT_ANEW = "Export it again with 'diffvqa export --format h5'."


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        videos: How many videos with features were added.
        failures: How many without.
        present: How many of either were there already.
    """

    videos: int
    failures: int
    present: int


def import_h5(
    file: Path,
    location: Path | str,
    *,
    shard_videos: int = 32,
    overwrite: bool = False,
    on_progress: Progress = no_progress,
) -> Imported:
    """Make a cache from an HDF5 file of :func:`export_h5`, or add the file's videos to one of the same features.

    Every array is checked against the digest that its row had in the first cache. Videos that are in the cache already
    stay as they are, so an import that was interrupted goes on where it stopped.

    Args:
        file: The HDF5 file.
        location: The cache's folder or URL.
        shard_videos: Videos per shard.
        overwrite: Replace the features that are there, whatever made them.
        on_progress: Told how many videos of how many are done.

    Raises:
        ImportFileError: The file is not there or no such export.
        CacheCorruptError: An array in the file is damaged; the message names video and array.
        FingerprintMismatchError: Other features are in the cache.
        CacheError: Other arrays are in the cache, or something else is there.
        CacheBusyError: Another process is writing there.
        OutputError: The cache cannot be written.
    """
    with _opened(file) as source:
        header, total = _header(source, file), len(source["row"]) + len(source["failure"])
        with CacheWriter(location, header, shard_videos=shard_videos, overwrite=overwrite) as writer:
            known = FeatureCache(location)
            usable, failed = set(known.ids()), {row.video_id for row in known.failures()}
            added = Counter[str]()
            for number, row in enumerate(_rows(source, file)):
                if row.video_id not in usable and not (row.status == "failed" and row.video_id in failed):
                    writer.add(ShardEntry(row, _arrays(source, number, row, header, file)))
                    added[row.status] += 1
                on_progress(number + 1, total)
    return Imported(added["ok"], added["failed"], total - added.total())


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    try:
        source = h5py.File(file, "r")
    except OSError as error:
        what = f"{file} cannot be read as HDF5." if file.is_file() else f"{file} is not there."
        raise ImportFileError(what, _EXPORT_ANEW) from error
    with source:
        yield source


def _header(source: h5py.File, file: Path) -> CacheHeader:
    version = int(source.attrs.get("format", 0))
    if not version or "cache" not in source.attrs:
        raise ImportFileError(f"{file} was not written by 'diffvqa export'.", _EXPORT_ANEW)
    if version > H5_FORMAT:
        raise SchemaTooNewError(f"{file} has format {version}; this software knows up to {H5_FORMAT}.", _UPGRADE)
    stored = json.loads(source.attrs["cache"])
    if stored["schema_version"] > SCHEMA_VERSION:
        what = f"{file} has schema version {stored['schema_version']}; this software knows up to {SCHEMA_VERSION}."
        raise SchemaTooNewError(what, _UPGRADE)
    return CacheHeader.model_validate(stored)


def _rows(source: h5py.File, file: Path) -> Iterator[VideoRow]:
    """Yield the rows of the videos with features, in the order in which these lie in the file, then of the others."""
    for name in ("row", "failure"):
        for number in range(len(source[name])):
            try:
                yield VideoRow.model_validate_json(source[name][number])
            except (OSError, ValueError) as error:
                what = f"{file} is damaged: {name} {number} cannot be read ({_first_line(error)})."
                raise CacheCorruptError(what, _EXPORT_ANEW) from error


def _arrays(
    source: h5py.File, number: int, row: VideoRow, header: CacheHeader, file: Path
) -> dict[str, NDArray[Any]] | None:
    if row.status == "failed":
        return None
    begin, end = source["frame_offset"][number : number + 2]
    arrays: dict[str, NDArray[Any]] = {}
    for spec in header.arrays:
        extents = map(slice, spec.shape_of(row.extents)[1:])
        try:
            arrays[spec.name] = source[f"features/{spec.name}"][(slice(begin, end), *extents)]
            why = "" if digest_of(arrays[spec.name]) == row.digests[spec.name] else "its digest is another"
        except (OSError, KeyError, ValueError) as error:
            why = _first_line(error)
        if why:
            raise CacheCorruptError(
                f"{file}: '{spec.name}' of video '{row.video_id}' is damaged ({why}).", _EXPORT_ANEW
            )
    return arrays


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
