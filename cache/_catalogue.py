"""Which videos a cache holds and where: one line each, kept in an index so that 100,000 of them open at once.

The marks are the truth. The index is derived from them: Arrow files, its parts, each with the lines of some marks and
named after its own digest. A part speaks only for the marks that are there under the name and size that it knows; marks
that no part knows are read. A missing, damaged or outdated index therefore costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from diffvqa.cache._errors import CacheCorruptError, CacheUnreachableError
from diffvqa.cache._schema import ABSENT, SourceStamp, VideoRow, unseal_document
from diffvqa.cache._shards import list_marks, mark_file
from diffvqa.cache._storage import LocalStorage, Storage

logger = logging.getLogger(__name__)

CATALOGUE_FOLDER = "catalogue"
_PART_SUFFIX = ".arrow"
_PARALLEL_READS = 16
_READ_AHEAD = 256
_LINES_PER_TABLE = 512
_MOST_PARTS = 8
_COLUMNS = pa.schema(
    {
        "video_id": pa.string(),
        "ok": pa.bool_(),
        "reason": pa.string(),
        "failed_row": pa.string(),  # the whole row as JSON, of a video that failed: a resumed run shows them all
        "shard": pa.string(),
        "entry": pa.int32(),
        "slot": pa.int32(),
        "frames": pa.int32(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "sha256": pa.string(),
        "etag": pa.string(),
        "mark_bytes": pa.int64(),
        "data_bytes": pa.int64(),
    },
)
_VERSION = b"diffvqa_catalogue"
_FINGERPRINT = b"fingerprint_digest"


@dataclass(frozen=True)
class Location:
    """Where the newest row of a video lies.

    Attributes:
        video_id: The video's.
        ok: Whether it has features.
        shard: The name of its shard.
        entry: Which row of the shard's mark it is.
        slot: Where it lies in the shard's arrays; how many lie before it, for a video that failed.
        frames: How many frames it has; 0 for a video that failed.
    """

    video_id: str
    ok: bool
    shard: str
    entry: int
    slot: int
    frames: int


class Catalogue:
    """Every video of a cache by id: the newest row of each, and where its arrays lie.

    Args:
        rows: A line for every row of every readable mark, in the order of writing.
        damaged: Name of a shard whose mark cannot be read -> why.
        is_compact: Whether all of it came from the index, and from few parts.

    Attributes:
        damaged: As given.
        is_compact: As given.
    """

    def __init__(self, rows: pa.Table, damaged: dict[str, str], *, is_compact: bool) -> None:
        self.damaged = damaged
        self.is_compact = is_compact
        self._rows = rows
        self._ok: list[bool] = rows["ok"].to_pylist()
        self._sizes: list[int] = rows["size"].to_pylist()
        self._times: list[int] = rows["mtime_ns"].to_pylist()
        self._newest = self._find_newest()

    @classmethod
    def load(cls, storage: Storage, fingerprint_digest: str) -> Catalogue:
        """Return the catalogue of the cache in ``storage``.

        Args:
            storage: Of the cache.
            fingerprint_digest: Of the features in it; a shard with others counts as damaged.

        Raises:
            SchemaTooNewError: A mark was written by newer software.
            CacheUnreachableError: The storage cannot be read.
        """
        marks = list_marks(storage)
        parts = list(_read_parts(storage, fingerprint_digest, marks))
        known = {name for part in parts for name in part["shard"].unique().to_pylist()}
        unknown = [name for name in marks if name not in known]
        rows, damaged = read_marks(storage, unknown, fingerprint_digest)
        # From the system's own allocator, here and below: Arrow's keeps what it was given for much larger tables.
        memory = pa.system_memory_pool()
        is_sorted = len(parts) <= 1 and not unknown
        rows = pa.concat_tables([*parts, rows], memory_pool=memory)
        if not is_sorted:
            in_order = [("shard", "ascending"), ("entry", "ascending")]
            rows = pc.take(rows, pc.sort_indices(rows, in_order, memory_pool=memory), memory_pool=memory)
        rows = rows.combine_chunks(memory_pool=memory)
        is_compact = not unknown and len(parts) <= _MOST_PARTS
        return cls(rows, damaged, is_compact=is_compact)

    def store(self, storage: Storage, fingerprint_digest: str) -> None:
        """Write this as the index of the cache in ``storage``, in the place of all its parts; only a run may do so.

        Args:
            storage: Of the cache.
            fingerprint_digest: Of the features in it.

        Raises:
            OutputError: It cannot be written.
        """
        older = storage.entries(CATALOGUE_FOLDER)
        newest = store_part(storage, self._rows, fingerprint_digest)
        for part in older:
            if part.name != newest:
                storage.delete(part.name)

    def __len__(self) -> int:
        return len(self._newest)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._newest

    def ids(self, *, ok: bool | None = None) -> tuple[str, ...]:
        """Return the ids of all videos, of those with features or of those without, in the order of writing."""
        if ok is None:
            return tuple(self._newest)
        return tuple(video_id for video_id, line in self._newest.items() if self._ok[line] == ok)

    def locate(self, video_id: str) -> Location | None:
        """Return where a video's newest row lies, or None when there is none."""
        line = self._newest.get(video_id)
        if line is None:
            return None
        cell = {name: self._rows[name][line].as_py() for name in ("shard", "entry", "slot", "frames")}
        return Location(video_id=video_id, ok=self._ok[line], **cell)

    def is_ok(self, video_id: str) -> bool:
        """Whether a video has features."""
        line = self._newest.get(video_id)
        return line is not None and self._ok[line]

    def failed_row(self, video_id: str) -> VideoRow:
        """Return the newest row of a video of this catalogue that failed."""
        return VideoRow.model_validate_json(self._rows["failed_row"][self._newest[video_id]].as_py())

    def is_unchanged(self, video_id: str, path: Path | str, at_url: SourceStamp | None = None) -> bool | None:
        """Whether the file of a video of this catalogue is the one its newest row speaks of; None when it is gone.

        Args:
            video_id: The video's.
            path: Of its file now.
            at_url: Its stamp now, where it lies at a URL.
        """
        line = self._newest[video_id]
        size, mtime_ns = self._sizes[line], self._times[line]
        if at_url is not None:
            stored = self._stamp(line)
            if not at_url.is_there:
                return None if stored.is_there else True
            return at_url.same_content_as(stored)
        try:
            stat = os.stat(path)  # noqa: PTH116  # making a Path of each of 100,000 takes longer than asking for it
        except OSError:
            return True if size == ABSENT else None
        if (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns):
            return True
        return SourceStamp.of(Path(path)).same_content_as(self._stamp(line))

    def count(self) -> tuple[int, int, dict[str, int]]:
        """Return how many videos have features, how many frames these have, and how many failed by reason."""
        lines = np.fromiter(self._newest.values(), np.int64, len(self._newest))
        newest = self._rows.take(pa.array(lines))
        ok = newest.filter(newest["ok"])
        failed = newest.filter(pc.invert(newest["ok"]))
        reasons = failed["reason"].value_counts().to_pylist()
        frames = int(ok["frames"].to_numpy().sum())
        return len(ok), frames, {one["values"]: one["counts"] for one in sorted(reasons, key=lambda o: -o["counts"])}

    def shards(self) -> dict[str, int]:
        """Return the bytes of every shard, mark and data, by its name, in the order of writing."""
        table = self._rows.select(["shard", "mark_bytes", "data_bytes"]).filter(
            pa.array(self._rows["entry"].to_numpy() == 0)
        )
        sizes = table["mark_bytes"].to_numpy() + table["data_bytes"].to_numpy()
        return dict(zip(table["shard"].to_pylist(), sizes.tolist(), strict=True))

    def ids_in(self, shard: str) -> tuple[str, ...]:
        """Return the ids of the videos that a shard has features of, newest or not."""
        is_there = pc.and_(pc.equal(self._rows["shard"], shard), self._rows["ok"])
        return tuple(self._rows.filter(is_there)["video_id"].to_pylist())

    def _find_newest(self) -> dict[str, int]:
        """Map each video to its newest line; a later failure on the very same file does not undo its features."""
        newest: dict[str, int] = {}
        ok = self._ok
        for line, video_id in enumerate(self._rows["video_id"].to_pylist()):
            if not ok[line] and ok[newest.get(video_id, line)] and self._failed_on_same_file(newest[video_id], line):
                continue
            newest[video_id] = line
        return newest

    def _failed_on_same_file(self, earlier: int, later: int) -> bool:
        before, after = self._stamp(earlier), self._stamp(later)
        if not after.is_there:
            return True
        same_content = bool(before.sha256) and before.sha256 == after.sha256
        return same_content or before.is_like(after)

    def _stamp(self, line: int) -> SourceStamp:
        stored = {name: self._rows[name][line].as_py() for name in ("size", "mtime_ns", "sha256", "etag")}
        return SourceStamp(path="", **stored)


def lines_of_mark(name: str, sealed: bytes, where: str, fingerprint_digest: str) -> list[tuple[Any, ...]]:
    """Return the catalogue's lines for one mark, each with a cell for every column.

    Args:
        name: The shard's.
        sealed: The mark's content.
        where: The mark's path, for messages.
        fingerprint_digest: Of the features in the cache.

    Raises:
        SchemaTooNewError: It was written by newer software.
        CacheCorruptError: It is damaged, or speaks of other features.
    """
    mark = unseal_document(sealed, where)
    if mark["fingerprint_digest"] != fingerprint_digest:
        raise CacheCorruptError(f"{where} belongs to another cache: its features were made another way.", "Remove it.")
    data_bytes = sum(file["size"] for file in mark["files"].values())
    lines, slot = [], 0
    for entry, row in enumerate(mark["rows"]):
        ok, source = row["status"] == "ok", row["source"]
        whole_row = None if ok else json.dumps(row)
        stamp = (source["size"], source["mtime_ns"], source["sha256"], source.get("etag", ""))
        place = (name, entry, slot, row["extents"].get("frame", 0))
        lines.append((row["video_id"], ok, row["reason"], whole_row, *place, *stamp, len(sealed), data_bytes))
        slot += ok
    return lines


def table_of(lines: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return lines of the catalogue as a table."""
    columns = zip(*lines, strict=True) if lines else ((),) * len(_COLUMNS)
    return pa.table(
        [pa.array(cells, kind) for cells, kind in zip(columns, _COLUMNS.types, strict=True)], schema=_COLUMNS
    )


def read_marks(storage: Storage, names: Sequence[str], fingerprint_digest: str) -> tuple[pa.Table, dict[str, str]]:
    """Return the lines of marks, and why some have none.

    Args:
        storage: Of the cache.
        names: Of the marks' shards.
        fingerprint_digest: Of the features in the cache.

    Raises:
        SchemaTooNewError: A mark was written by newer software.
        CacheUnreachableError: The storage cannot be read.
    """
    tables, damaged, lines = [], {}, list[tuple[Any, ...]]()
    for name, sealed in zip(names, _contents(storage, names), strict=True):
        where = storage.describe(mark_file(name))
        try:
            if sealed is None:
                raise CacheCorruptError(f"{where} is not there any more.", "Open the cache again.")
            lines += lines_of_mark(name, sealed, where, fingerprint_digest)
        except CacheCorruptError as error:
            logger.warning("%s", error)
            damaged[name] = error.what
        if len(lines) >= _LINES_PER_TABLE:
            tables.append(table_of(lines))
            lines.clear()
    return pa.concat_tables([*tables, table_of(lines)]), damaged


def _contents(storage: Storage, names: Sequence[str]) -> Iterator[bytes | None]:
    """Yield the marks' contents, None for one that is gone; several are asked for at once where each takes long."""

    def read(name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return storage.read(mark_file(name))
        return None

    if isinstance(storage, LocalStorage):
        yield from map(read, names)
        return
    with ThreadPoolExecutor(_PARALLEL_READS, "marks") as pool:
        for first in range(0, len(names), _READ_AHEAD):
            yield from pool.map(read, names[first : first + _READ_AHEAD])


def store_part(storage: Storage, rows: pa.Table, fingerprint_digest: str) -> str:
    """Add lines to the index of the cache in ``storage`` as a part of their own; return its name.

    Raises:
        OutputError: It cannot be written.
    """
    rows = rows.replace_schema_metadata({_VERSION: b"1", _FINGERPRINT: fingerprint_digest.encode()})
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(rows)
    content = buffer.getvalue().to_pybytes()
    name = f"{CATALOGUE_FOLDER}/{hashlib.sha256(content).hexdigest()}{_PART_SUFFIX}"
    storage.write(name, content)
    return name


def parse_part(base: str, content: bytes, fingerprint_digest: str) -> pa.Table | None:
    """Return the lines of a part of the index; None when it is not whole, or not of these features.

    Args:
        base: The part's file name, which says its digest.
        content: Of the file.
        fingerprint_digest: Of the features in the cache.
    """
    if base != f"{hashlib.sha256(content).hexdigest()}{_PART_SUFFIX}":
        return None
    table = pa.ipc.open_file(content, memory_pool=pa.system_memory_pool()).read_all()
    metadata = table.schema.metadata or {}
    if "etag" not in table.column_names:  # of a cache that knew no videos at URLs
        none = pa.array([""] * len(table), pa.string())
        table = table.add_column(_COLUMNS.get_field_index("etag"), _COLUMNS.field("etag"), none)
    is_ours = (metadata.get(_VERSION), metadata.get(_FINGERPRINT)) == (b"1", fingerprint_digest.encode())
    return table.replace_schema_metadata(None) if is_ours and table.schema.equals(_COLUMNS) else None


def _read_parts(storage: Storage, fingerprint_digest: str, marks: dict[str, int]) -> Iterator[pa.Table]:
    """Yield the lines of each part of the index, as far as their marks are there and no other part has them."""
    seen: set[str] = set()
    for listed in storage.entries(CATALOGUE_FOLDER):
        with suppress(FileNotFoundError, CacheUnreachableError):
            part = parse_part(listed.base, storage.read(listed.name), fingerprint_digest)
            if part is None:
                continue
            firsts = part.filter(pa.array(part["entry"].to_numpy() == 0))
            sizes = dict(zip(firsts["shard"].to_pylist(), firsts["mark_bytes"].to_pylist(), strict=True))
            unusable = {name for name, size in sizes.items() if marks.get(name) != size or name in seen}
            seen.update(sizes)
            if unusable:
                part = part.filter(pa.array([name not in unusable for name in part["shard"].to_pylist()], pa.bool_()))
            yield part
