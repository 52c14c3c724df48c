"""What a cache holds, versioned: its header, the specification of its arrays, and a row for every video."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from diffvqa.cache._errors import (
    CacheCorruptError,
    CacheMissingError,
    CacheUnreachableError,
    FingerprintMismatchError,
    SchemaTooNewError,
)
from diffvqa.cache._fingerprint import Fingerprint, FingerprintValue
from diffvqa.cache._sealed import seal, unseal
from diffvqa.cache._source_files import digest, is_url, look_up
from diffvqa.cache._storage import Listed, Storage

SCHEMA_VERSION = 1
HEADER_FILE = "cache.json"
RAGGED_DIMENSIONS = ("frame", "crop")
ABSENT = -1
_WRITE_ANEW = "Run 'diffvqa extract' again: for the same features it writes this file anew and keeps them."
_MAKE_AGAIN = "Remove it and run 'diffvqa extract': its videos are done again."


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


StoredModel = TypeVar("StoredModel", bound=_Stored)


class ArraySpec(_Stored):
    """One array of the cache; a shard holds it as (videos, *shape), zero where a video has fewer frames or crops.

    Attributes:
        name: Branch and content, such as ``resize/latent``.
        dimensions: Names of the dimensions of one video's array; the first is ``frame``.
        shape: Sizes of those dimensions; for ``frame`` and ``crop`` the most that a video has.
        dtype: NumPy's name of the element type.
        unit: Of the values, as UDUNITS write it; ``1`` where they have none.
        value_range: Smallest and largest value there can be; None where any finite number can be.
        description: Content, in words.
        levels: Name -> (first channel, one past its last), where runs of channels have names; else empty.
    """

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    value_range: tuple[float, float] | None
    description: str
    levels: dict[str, tuple[int, int]] = {}

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a stored array say of it, beside its dimensions and its type."""
        value_range = None if self.value_range is None else list(self.value_range)
        said: dict[str, Any] = {"description": self.description, "unit": self.unit, "value_range": value_range}
        if self.levels:
            said["levels"] = {name: list(channels) for name, channels in self.levels.items()}
        return said

    def shape_of(self, extents: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of the array of a video with these many frames and crops."""
        return tuple(extents.get(dimension, most) for dimension, most in zip(self.dimensions, self.shape, strict=True))

    def extents_of(self, shape: tuple[int, ...]) -> dict[str, int]:
        """Return how many frames and crops a video's array of this shape has.

        Raises:
            ValueError: The array does not fit this specification.
        """
        fits = len(shape) == len(self.shape) and all(
            1 <= size <= most if dimension in RAGGED_DIMENSIONS else size == most
            for dimension, size, most in zip(self.dimensions, shape, self.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{self.name} is {shape}, expected {self.shape}")
        sizes = dict(zip(self.dimensions, shape, strict=True))
        return {dimension: sizes[dimension] for dimension in RAGGED_DIMENSIONS if dimension in sizes}


class CacheHeader(_Stored):
    """What is true of the whole cache.

    Attributes:
        schema_version: Of the layout on disk.
        fingerprint: Fields of the features' fingerprint.
        fingerprint_digest: Their SHA-256.
        recipe: The extraction recipe in full, as the user gave it.
        arrays: The arrays every usable video has.
        software: Name -> version of what made the features, decoders among it.
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
        path: Where it lay, a path or a URL.
        size: Bytes; -1 when there was no file.
        mtime_ns: Time of modification, nanoseconds since the epoch; -1 when there was no file, or it is not known.
        sha256: Of its content, in hexadecimal; empty where it was not taken.
        etag: What the server of a URL named the content by; empty for a file of this machine.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str = ""
    etag: str = ""

    @classmethod
    def of(cls, location: Path | str) -> SourceStamp:
        """Return the stamp of a file as it is now, without reading it.

        Raises:
            CacheUnreachableError: It lies at a URL whose server does not answer.
        """
        if is_url(location):
            return cls.listed(str(location), look_up(str(location)))
        path = Path(location)
        try:
            stat = path.stat()
        except OSError:
            return cls.absent(path)
        return cls(path=str(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    @classmethod
    def listed(cls, url: str, found: Listed | None) -> SourceStamp:
        """Return the stamp of a file at a URL from what is known of it there, None where it is not there."""
        if found is None:
            return cls.absent(url)
        return cls(path=url, size=found.size, mtime_ns=found.mtime_ns, etag=found.etag)

    @classmethod
    def absent(cls, location: Path | str) -> SourceStamp:
        """Return the stamp of a file that is not there."""
        return cls(path=str(location), size=ABSENT, mtime_ns=ABSENT)

    def with_content(self) -> SourceStamp:
        """Return this stamp with the file's digest, which is empty if the file changed since or cannot be read."""
        content = ""
        with contextlib.suppress(OSError, CacheUnreachableError):
            content = self._digest()
            if SourceStamp.of(self.path) != self.model_copy(update={"sha256": ""}):
                content = ""
        return self.model_copy(update={"sha256": content})

    @property
    def is_there(self) -> bool:
        """Whether there was a file."""
        return self.size != ABSENT

    def same_content_as(self, stored: SourceStamp) -> bool:
        """Whether this file, as it is now, is the one that was stamped; its path may be another.

        Size and time of modification decide, or a server's name for the content; where these differ but for the size,
        as in a copy, the content does.
        """
        if self.is_like(stored):
            return True
        if self.size != stored.size or not stored.sha256:
            return False
        return (self.sha256 or self.with_content().sha256) == stored.sha256

    def is_like(self, other: SourceStamp) -> bool:
        """Whether all that is known without reading says that this and another are the same content."""
        if self.size != other.size:
            return False
        if self.etag or other.etag:
            return self.etag == other.etag
        return self.mtime_ns == other.mtime_ns and (self.mtime_ns != ABSENT or not self.is_there)

    def _digest(self) -> str:
        if is_url(self.path):
            return digest(self.path)
        path = Path(self.path)
        if not path.is_file():  # to open a pipe would wait for ever
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


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
        substitutions: (asked for, used instead) for each frame that could not be decoded, as indices.
        frame_rate: Mean frames per second of the file; 0 when unknown.
        duration: Of the file's video, in seconds; 0 when unknown.
        note: Empty, or what is unusual about a video that was used, such as ``truncated: 7 of 8 frames``.
        extents: How many frames (``frame``) and crops (``crop``) its arrays have; filled in on writing.
        digests: Array name -> SHA-256 (hex) of this video's values in it, little-endian, C order, without the zeros
            that fill the shard's array up; filled in on writing.
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
    substitutions: tuple[tuple[int, int], ...] = ()
    frame_rate: float = 0.0
    duration: float = 0.0
    note: str = ""
    extents: dict[str, int] = {}
    digests: dict[str, str] = {}


class StoredFile(_Stored):
    """One file of a shard.

    Attributes:
        size: Bytes.
        sha256: Of its bytes, in hexadecimal.
    """

    size: int
    sha256: str


class ShardMark(_Stored):
    """Says that a shard is complete; a shard without a mark does not exist.

    Attributes:
        schema_version: Of the layout on disk.
        fingerprint_digest: Of the features in it; that of the cache it belongs to.
        files: Every file of the shard, by its path in the shard's folder.
        rows: One per video; usable videos lie in the shard's arrays in this order.
    """

    schema_version: int
    fingerprint_digest: str
    files: dict[str, StoredFile]
    rows: tuple[VideoRow, ...]


def write_header(storage: Storage, header: CacheHeader) -> None:
    """Write the header of the cache in ``storage``, in one step.

    Raises:
        OutputError: It cannot be written.
    """
    storage.write(HEADER_FILE, seal(header.model_dump_json(indent=2)))


def read_header(storage: Storage) -> CacheHeader:
    """Read the header of the cache in ``storage``.

    Raises:
        CacheMissingError: There is no cache.
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: The header is damaged.
        CacheUnreachableError: The storage cannot be read.
    """
    where = storage.describe(HEADER_FILE)
    try:
        sealed = storage.read(HEADER_FILE)
    except FileNotFoundError as error:
        hint = "Run 'diffvqa extract'."
        raise CacheMissingError(f"{storage.describe()} is no feature cache: {HEADER_FILE} is missing.", hint) from error
    header = _validated(CacheHeader, unseal_document(sealed, where, _WRITE_ANEW), where, _WRITE_ANEW)
    if Fingerprint(header.fingerprint).digest != header.fingerprint_digest:
        raise CacheCorruptError(f"{where} is damaged: its fingerprint does not match its digest.", _WRITE_ANEW)
    return header


def require_same_features(asked: CacheHeader, stored: CacheHeader, where: str, ways_out: str) -> None:
    """Check that two caches hold the same features: the same fingerprint, and arrays of the same shapes and types.

    Args:
        asked: What is to be there.
        stored: What is at ``where``.
        where: Named in the message.
        ways_out: What the user can do about a difference.

    Raises:
        FingerprintMismatchError: They differ; the message names each differing field and both values.
    """
    Fingerprint(asked.fingerprint).require_equal(Fingerprint(stored.fingerprint), where, ways_out)
    layouts = [
        {spec.name: (spec.dimensions, spec.shape, spec.dtype) for spec in header.arrays} for header in (asked, stored)
    ]
    for name in sorted({*layouts[0], *layouts[1]}):
        here, there = (layout.get(name, "(absent)") for layout in layouts)
        if here != there:
            what = f"{where} holds other arrays: {name} is {there} there, {here} was asked for."
            raise FingerprintMismatchError(what, ways_out)


def parse_mark(sealed: bytes, where: str) -> ShardMark:
    """Return the mark that ``sealed``, the content of the file ``where``, is.

    Raises:
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: It is damaged.
    """
    return _validated(ShardMark, unseal_document(sealed, where), where, _MAKE_AGAIN)


def unseal_document(sealed: bytes, where: str, hint: str = _MAKE_AGAIN) -> dict[str, Any]:
    """Return the checked JSON object of a stored file, of a version that this software knows.

    Raises:
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: It is damaged.
    """
    content = unseal(sealed, where, hint)
    try:
        document: dict[str, Any] = from_json(content, cache_strings="keys")
        version = int(document["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CacheCorruptError(f"{where} is damaged: {error}.", hint) from error
    if version > SCHEMA_VERSION:
        what = f"{where} has schema version {version}; this software knows up to {SCHEMA_VERSION}."
        raise SchemaTooNewError(what, "Upgrade diffvqa.")
    return document


def _validated(model: type[StoredModel], document: dict[str, Any], where: str, hint: str) -> StoredModel:
    try:
        return model.model_validate(document)
    except ValueError as error:
        raise CacheCorruptError(f"{where} is damaged: {str(error).splitlines()[0]}.", hint) from error
