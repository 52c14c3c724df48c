"""Reading a whole cache again and comparing every byte of it with the digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from diffvqa.cache._catalogue import CATALOGUE_FOLDER, Catalogue, lines_of_mark, parse_part, table_of
from diffvqa.cache._errors import CacheCorruptError
from diffvqa.cache._layout import data_file, video_length
from diffvqa.cache._schema import HEADER_FILE, ArraySpec, CacheHeader, StoredFile, read_header
from diffvqa.cache._shard_reader import ShardReader
from diffvqa.cache._shards import data_folder, list_marks, mark_file
from diffvqa.cache._storage import Storage, open_storage

_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Damage:
    """One file of a cache that is not what was written.

    Attributes:
        file: Its path or URL.
        why: What is wrong with it.
        arrays: The arrays it holds a part of.
        videos: The videos that cannot be read because of it.
    """

    file: str
    why: str
    arrays: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What a look at every byte found.

    Attributes:
        location: The cache.
        shards: How many shards it has.
        videos: How many usable videos were read.
        size: How many bytes were read.
        damages: What is wrong; nothing when all is well.
    """

    location: str
    shards: int
    videos: int
    size: int
    damages: tuple[Damage, ...]


def verify(
    location: Path | str, *, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> VerifyReport:
    """Read every file of a cache and compare it with its digests, a few videos at a time.

    Args:
        location: The cache's folder or URL.
        on_progress: Told how many shards of how many are done.

    Raises:
        CacheMissingError: There is no cache.
        SchemaTooNewError: It was written by newer software.
        CacheUnreachableError: The place cannot be read.
    """
    check = _Check(open_storage(location))
    shards = list_marks(check.storage)
    for done, name in enumerate(shards, 1):
        check.shard(name)
        on_progress(done, len(shards))
    check.indexes()
    return VerifyReport(check.storage.describe(), len(shards), check.videos, check.size, tuple(check.damages))


class _Check:
    """A verification under way: what was read, and what was found."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.videos = 0
        self.size = 0
        self.damages: list[Damage] = []
        self._header: CacheHeader | None = None
        try:
            self._header = read_header(storage)
            self.size += len(storage.read(HEADER_FILE))
        except CacheCorruptError as error:
            self.damages.append(Damage(storage.describe(HEADER_FILE), _why(error)))

    def shard(self, name: str) -> None:
        """Check a shard: its mark, its files, and every array of its videos."""
        specs = self._header.arrays if self._header else ()
        try:
            sealed = self.storage.read(mark_file(name))
            self.size += len(sealed)
            reader = ShardReader(self.storage, name, specs)
            if self._header:
                digest = self._header.fingerprint_digest
                lines_of_mark(name, sealed, self.storage.describe(mark_file(name)), digest)
        except (FileNotFoundError, CacheCorruptError) as error:
            arrays = tuple(spec.name for spec in specs)
            self._found(mark_file(name), _why(error), arrays, self._known_videos(name))
            return
        self.videos += len(reader.usable)
        by_file = {data_file(spec): spec for spec in specs}
        for path, stored in reader.mark.files.items():
            spec = by_file.get(path)
            self._file(f"{data_folder(name)}/{path}", stored, reader, spec)
        for listed in self.storage.walk(data_folder(name)):
            if listed.name.removeprefix(f"{data_folder(name)}/") not in reader.mark.files:
                self._found(listed.name, "it is not in the shard's mark")

    def _known_videos(self, shard: str) -> tuple[str, ...]:
        """Return the videos with features in a shard whose mark is damaged, as far as the index remembers them."""
        if self._header is None:
            return ()
        return Catalogue.load(self.storage, self._header.fingerprint_digest).ids_in(shard)

    def indexes(self) -> None:
        """Check the stored index: its bytes, and whether it says what the marks say."""
        if self._header is None:
            return
        for listed in self.storage.entries(CATALOGUE_FOLDER):
            content = self.storage.read(listed.name)
            self.size += len(content)
            index = parse_part(listed.base, content, self._header.fingerprint_digest)
            if index is None:
                self._found(listed.name, "its bytes do not match the digest in its name; the next extraction mends it")
            elif not self._agrees_with_marks(index, self._header.fingerprint_digest):
                self._found(listed.name, "it does not say what the marks say; remove it, it is made again")

    def _agrees_with_marks(self, index: pa.Table, fingerprint_digest: str) -> bool:
        marks = list_marks(self.storage)
        firsts = np.flatnonzero(index["entry"].to_numpy() == 0)
        for first, end in zip(firsts, [*firsts[1:], len(index)], strict=True):
            shard = index["shard"][first].as_py()
            if shard not in marks:
                continue
            where = self.storage.describe(mark_file(shard))
            try:
                mark = lines_of_mark(shard, self.storage.read(mark_file(shard)), where, fingerprint_digest)
            except CacheCorruptError:
                continue  # found before, and no fault of the index
            if not index.slice(first, end - first).equals(table_of(mark)):
                return False
        return True

    def _file(self, path: str, stored: StoredFile, reader: ShardReader, spec: ArraySpec | None) -> None:
        digest, size, bad = hashlib.sha256(), 0, []
        length = video_length(spec) if spec else _BLOCK_BYTES
        array = spec.name if spec else path.removeprefix(f"{data_folder(reader.name)}/").rpartition("/")[0]
        try:
            for block in self._blocks(path, length * max(1, _BLOCK_BYTES // length)):
                digest.update(block.data)
                if spec:
                    first = size // length
                    bad += [
                        reader.usable[slot].video_id
                        for slot in range(first, min(first + len(block) // length, len(reader.usable)))
                        if not _is_good(reader, slot, spec.name, block[(slot - first) * length :][:length])
                    ]
                size += len(block)
        except FileNotFoundError:
            videos = tuple(row.video_id for row in reader.usable) if spec else ()
            self._found(path, "it is not there", (array,) if array else (), videos)
            return
        self.size += size
        if spec:
            bad += [row.video_id for row in reader.usable[size // length :]]
        if bad or digest.hexdigest() != stored.sha256:
            self._found(path, "its bytes do not match their digests", (array,) if array else (), tuple(bad))

    def _blocks(self, path: str, length: int) -> Iterator[NDArray[np.uint8]]:
        start, there = 0, length
        while there == length:
            block = np.empty(length, np.uint8)
            there = self.storage.read_into(path, start, block)
            start += there
            yield block[:there]

    def _found(self, file: str, why: str, arrays: tuple[str, ...] = (), videos: tuple[str, ...] = ()) -> None:
        self.damages.append(Damage(self.storage.describe(file), why, arrays, videos))


def _is_good(reader: ShardReader, slot: int, array: str, content: NDArray[np.uint8]) -> bool:
    try:
        reader.verify(slot, array, content)
    except CacheCorruptError:
        return False
    return True


def _why(error: Exception) -> str:
    what = error.what if isinstance(error, CacheCorruptError) else "it is not there any more"
    return what.partition(" is damaged: ")[2] or what
