"""What a cache holds, versioned: its header, the specification of its arrays, and a row for every video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from diffvqa.cache.atomic import atomic_write_text
from diffvqa.cache.errors import CacheCorruptError, CacheMissingError, SchemaTooNewError
from diffvqa.cache.fingerprint import Fingerprint, FingerprintValue

SCHEMA_VERSION = 1
HEADER_FILE = "cache.json"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


StoredModel = TypeVar("StoredModel", bound=_Stored)


class ArraySpec(_Stored):
    """One array of the cache; a shard holds it as (videos, *shape), zero after a video's last frame.

    Attributes:
        name: Branch and content, such as ``resize/latent``.
        dimensions: Names of the dimensions of one video's array; the first is ``frame``.
        shape: Sizes of those dimensions; the first is the most frames that a video has.
        dtype: NumPy's name of the element type.
        description: Content, unit and value range, in words.
    """

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    description: str


class CacheHeader(_Stored):
    """What is true of the whole cache.

    Attributes:
        schema_version: Of the layout on disk.
        fingerprint: Fields of the features' fingerprint.
        fingerprint_digest: Their SHA-256.
        recipe: The extraction recipe in full, as the user gave it.
        arrays: The arrays every usable video has.
        software: Name -> version of what made the features.
        created: UTC, ISO 8601.
    """

    schema_version: int
    fingerprint: dict[str, FingerprintValue]
    fingerprint_digest: str
    recipe: dict[str, FingerprintValue]
    arrays: tuple[ArraySpec, ...]
    software: dict[str, str]
    created: str


class SourceStamp(_Stored):
    """A video file as it was when it was read; a change means that its features are stale.

    Attributes:
        path: Where it lay.
        size: Bytes; -1 when there was no file.
        mtime_ns: Time of modification, nanoseconds since the epoch; -1 when there was no file.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> SourceStamp:
        """Return the stamp of the file at ``path`` as it is now."""
        try:
            stat = path.stat()
        except OSError:
            return cls(path=str(path), size=-1, mtime_ns=-1)
        return cls(path=str(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    def same_content_as(self, other: SourceStamp) -> bool:
        """Whether both are the same bytes as far as size and time tell; the path may have moved."""
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


class VideoRow(_Stored):
    """What is known of one video: where its features lie, or why there are none.

    Attributes:
        video_id: The key of everything about this video.
        status: ``ok`` or ``failed``.
        reason: Empty, or a short name such as ``missing``.
        detail: Empty, or the decoder's own words.
        source: The file as it was read.
        frame_indices: Indices of the sampled frames in presentation order.
        timestamps: Their presentation times, in seconds.
        crop_positions: (top, left) of each crop, in pixels of the frame.
        width: Of a frame, in pixels; 0 when unknown.
        height: Of a frame, in pixels; 0 when unknown.
        decoder: Name and version of what decoded it.
        digests: Array name -> SHA-256 (hex) of this video's bytes in it, little-endian, C order, real frames only.
    """

    video_id: str
    status: Literal["ok", "failed"]
    reason: str = ""
    detail: str = ""
    source: SourceStamp
    frame_indices: tuple[int, ...] = ()
    timestamps: tuple[float, ...] = ()
    crop_positions: tuple[tuple[int, int], ...] = ()
    width: int = 0
    height: int = 0
    decoder: str = ""
    digests: dict[str, str] = {}


class ShardMark(_Stored):
    """Says that a shard is complete; a shard without a mark does not exist.

    Attributes:
        schema_version: Of the layout on disk.
        rows: One per video; usable videos lie in the shard's arrays in this order.
    """

    schema_version: int
    rows: tuple[VideoRow, ...]


def write_header(directory: Path, header: CacheHeader) -> None:
    """Write the header of the cache in ``directory``, atomically."""
    atomic_write_text(directory / HEADER_FILE, header.model_dump_json(indent=2) + "\n")


def read_header(directory: Path) -> CacheHeader:
    """Read the header of the cache in ``directory``.

    Raises:
        CacheMissingError: There is no cache.
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: The header is damaged.
    """
    path = directory / HEADER_FILE
    if not path.is_file():
        raise CacheMissingError(f"{directory} is no feature cache: {HEADER_FILE} is missing.", "Run 'diffvqa extract'.")
    header = parse_stored(path, CacheHeader)
    if Fingerprint(header.fingerprint).digest != header.fingerprint_digest:
        raise CacheCorruptError(f"{path} is damaged: its fingerprint does not match its digest.", _EXTRACT_ANEW)
    return header


def parse_stored(path: Path, model: type[StoredModel]) -> StoredModel:
    """Read one of the cache's JSON files.

    Raises:
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: It is not what was written.
    """
    try:
        stored = json.loads(path.read_bytes())
        version = int(stored["schema_version"])
        if version > SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"{path} has schema version {version}; this software knows up to {SCHEMA_VERSION}.",
                "Upgrade diffvqa.",
            )
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = _EXTRACT_ANEW if model is CacheHeader else "Remove it and run 'diffvqa extract': its videos are redone."
        raise CacheCorruptError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint) from error


_EXTRACT_ANEW = "Extract into another directory, or with --overwrite."
