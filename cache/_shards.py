"""Writing a shard: whole, checked, published in one step, then marked done."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from diffvqa.cache._errors import DiffVQAError
from diffvqa.cache._layout import create_array, data_file, encode_videos
from diffvqa.cache._run_lock import Run, require_current
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, ShardMark, StoredFile, VideoRow
from diffvqa.cache._sealed import seal
from diffvqa.cache._storage import UNFINISHED_PREFIX, Storage

SHARDS_FOLDER = "shards"
MARK_SUFFIX = ".json"
DATA_SUFFIX = ".zarr"


@dataclass(frozen=True)
class ShardEntry:
    """One video on its way into a shard.

    Attributes:
        row: What is known of it; its extents and digests are filled in on writing.
        arrays: Array name -> (frames, ...) array, or None for a video that failed.
    """

    row: VideoRow
    arrays: Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True)
class StagedShard:
    """A shard whose data is there and that no reader sees yet; plain values, so that it can be sent to its publisher.

    Attributes:
        name: The shard's.
        mark: The sealed content of its mark.
        rows: One per video, extents and digests filled in.
    """

    name: str
    mark: bytes
    rows: tuple[VideoRow, ...]


@dataclass
class ShardWriter:
    """Publishes the shards of a run; any number of these work side by side, in any number of processes.

    Attributes:
        storage: Of the cache.
        header: Of the cache.
        run: In whose name; nothing is published once it is over.
    """

    storage: Storage
    header: CacheHeader
    run: Run
    _published: int = field(default=0, init=False)

    def write(self, entries: Sequence[ShardEntry]) -> str:
        """Write one shard; when this returns, its rows exist and are durable.

        Args:
            entries: The videos, in the order in which they are to be stored; at least one.

        Returns:
            The shard's name.

        Raises:
            OutputError: The storage is full or not writable; nothing incomplete is left behind for readers.
            CacheBusyError: Another run has taken over.
            ValueError: An entry's arrays are not those of the header.
        """
        staged = self.stage(entries, self._published)
        self._published += 1
        publish_mark(self.storage, self.run, staged.name, staged.mark)
        return staged.name

    def stage(self, entries: Sequence[ShardEntry], sequence: int) -> StagedShard:
        """Write one shard but for its mark; until :func:`publish_mark` puts that there, it does not exist.

        Args:
            entries: The videos, in the order in which they are to be stored; at least one.
            sequence: Which of the run's shards it is.

        Raises:
            OutputError: The storage is full or not writable; nothing incomplete is left behind for readers.
            CacheBusyError: Another run has taken over.
            ValueError: An entry's arrays are not those of the header.
        """
        require_current(self.storage, self.run)
        rows = tuple(_described(entry, self.header.arrays) for entry in entries)
        usable = [entry.arrays for entry in entries if entry.arrays is not None]
        name = shard_name(self.run.number, sequence)
        files: dict[str, StoredFile] = {}
        with self.storage.new_folder(data_folder(name)) as folder:
            for path, content in _files_of(self.header.arrays, usable):
                folder.write(path, content)
                files[path] = StoredFile(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        mark = ShardMark(
            schema_version=SCHEMA_VERSION,
            fingerprint_digest=self.header.fingerprint_digest,
            files=dict(sorted(files.items())),
            rows=rows,
        )
        return StagedShard(name, seal(mark.model_dump_json()), rows)


def shard_name(run: int, sequence: int, unique: str = "") -> str:
    """Return a shard's name; names sort in the order of writing, and end in something that no other shard has.

    Args:
        run: Number of the run that puts it into its cache.
        sequence: Which of a writer's shards it is in that run.
        unique: What it ends in; something new when empty.
    """
    return f"{run:06d}-{sequence:06d}-{unique or uuid.uuid4().hex[:12]}"


def unique_part(name: str) -> str:
    """Return what a shard's name ends in, by which it is known in whatever cache it lies."""
    return name.rpartition("-")[2]


def mark_file(name: str) -> str:
    """Return where a shard's mark lies in its cache."""
    return f"{SHARDS_FOLDER}/{name}{MARK_SUFFIX}"


def data_folder(name: str) -> str:
    """Return where a shard's data lies in its cache."""
    return f"{SHARDS_FOLDER}/{name}{DATA_SUFFIX}"


def publish_mark(storage: Storage, run: Run, name: str, sealed: bytes) -> None:
    """Mark a shard, whose data is there, as done.

    Raises:
        CacheBusyError: Another run has taken over; the shard is removed.
        OutputError: The mark cannot be written; the shard is removed.
    """
    try:
        with storage.publishing():
            require_current(storage, run)
            storage.write(mark_file(name), sealed)
            # An object store has no lock to hold meanwhile: a run that took over just now may have removed the data.
            require_current(storage, run)
    except BaseException:
        with suppress(DiffVQAError):  # the next run removes what cannot be removed now; first the mark, or neither
            storage.delete(mark_file(name))
            storage.delete(data_folder(name))
        raise


def list_marks(storage: Storage) -> dict[str, int]:
    """Return the size in bytes of every mark, by its shard's name, in the order of writing.

    Raises:
        CacheUnreachableError: The storage cannot be read.
    """
    return {
        listed.base.removesuffix(MARK_SUFFIX): listed.size
        for listed in storage.entries(SHARDS_FOLDER)
        if not listed.is_folder and listed.base.endswith(MARK_SUFFIX) and not listed.base.startswith(".")
    }


def run_of(name: str) -> int:
    """Return the number of the run that wrote a shard."""
    return int(name.split("-")[0])


def remove_unmarked(storage: Storage) -> int:
    """Remove what interrupted runs left behind and return how many shards it was; only a run that began may call this.

    Raises:
        OutputError: Something cannot be removed.
    """
    listed = storage.entries(SHARDS_FOLDER)
    marked = {one.base.removesuffix(MARK_SUFFIX) for one in listed if one.base.endswith(MARK_SUFFIX)}
    leftovers = [
        one
        for one in listed
        if one.base.startswith(".") or (one.is_folder and one.base.removesuffix(DATA_SUFFIX) not in marked)
    ]
    for leftover in leftovers:
        storage.delete(leftover.name)
    return sum(one.base.startswith(UNFINISHED_PREFIX) or one.is_folder for one in leftovers)


def digest_of(array: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of an array's bytes, little-endian, C order."""
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.data).hexdigest()


def _described(entry: ShardEntry, specs: Sequence[ArraySpec]) -> VideoRow:
    """Return the entry's row with its extents and digests, after a look at its arrays."""
    if entry.arrays is None:
        return entry.row
    extents: dict[str, int] = {}
    for spec in specs:
        array = entry.arrays[spec.name]
        if array.dtype != spec.dtype:
            raise ValueError(f"{entry.row.video_id}: {spec.name} is {array.dtype}, expected {spec.dtype}")
        try:
            found = spec.extents_of(array.shape)
        except ValueError as error:
            raise ValueError(f"{entry.row.video_id}: {error}") from error
        if any(extents.setdefault(dimension, size) != size for dimension, size in found.items()):
            raise ValueError(f"{entry.row.video_id}: {spec.name} has {found}, other arrays have {extents}")
    digests = {spec.name: digest_of(entry.arrays[spec.name]) for spec in specs}
    return entry.row.model_copy(update={"extents": extents, "digests": digests})


def _files_of(specs: Sequence[ArraySpec], usable: Sequence[Mapping[str, NDArray[Any]]]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of a shard's files, one array after the other."""
    metadata: dict[str, Buffer] = {}
    store = MemoryStore(metadata)
    zarr.create_group(store)
    for spec in specs if usable else ():
        create_array(store, spec, len(usable))
        yield data_file(spec), bytes(encode_videos(spec, (arrays[spec.name] for arrays in usable)))
    for path, content in metadata.items():
        yield path, content.to_bytes()
