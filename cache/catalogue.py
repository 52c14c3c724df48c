"""Which videos a cache holds and where: one line each, kept in an index so that 100,000 of them open at once.

The marks are the truth. The index is a Parquet file derived from them, named after its own digest; it speaks only for
the marks that are there under the name and size that it knows, the others are read. A missing, damaged or outdated
index therefore costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffvqa.cache.errors import CacheCorruptError, CacheUnreachableError
from diffvqa.cache.schema import ABSENT, SourceStamp, VideoRow, unseal_document
from diffvqa.cache.shards import list_marks, mark_file
from diffvqa.cache.storage import LocalStorage, Storage

logger = logging.getLogger(__name__)

CATALOGUE_FOLDER = "catalogue"
_CATALOGUE_SUFFIX = ".parquet"
_PARALLEL_READS = 16
_READ_AHEAD = 256
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
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "sha256": pa.string(),
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
        unindexed: How many marks the stored index did not know.

    Attributes:
        damaged: As given.
        unindexed: As given.
    """

    def __init__(self, rows: pa.Table, damaged: dict[str, str], unindexed: int) -> None:
        self.damaged = damaged
        self.unindexed = unindexed
        self._rows = rows
        self._ok = rows["ok"].to_numpy()
        self._sizes = rows["size"].to_numpy()
        self._times = rows["mtime_ns"].to_numpy()
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
        indexed = _of_marks(_read_index(storage, fingerprint_digest), marks)
        known = set(indexed["shard"].unique().to_pylist())
        unknown = [name for name in marks if name not in known]
        damaged: dict[str, str] = {}
        tables = [indexed]
        for name, lines in _read_marks(storage, unknown, fingerprint_digest):
            if isinstance(lines, str):
                damaged[name] = lines
            else:
                tables.append(lines)
        rows = indexed
        if len(tables) > 1:
            rows = pa.concat_tables(tables).combine_chunks()
            rows = rows.sort_by([("shard", "ascending"), ("entry", "ascending")])
        return cls(rows, damaged, len(unknown) - len(damaged))

    def store(self, storage: Storage, fingerprint_digest: str) -> None:
        """Write this as the index of the cache in ``storage``, in the place of older ones; only a run may do so.

        Args:
            storage: Of the cache.
            fingerprint_digest: Of the features in it.

        Raises:
            OutputError: It cannot be written.
        """
        buffer = pa.BufferOutputStream()
        metadata = {_VERSION: b"1", _FINGERPRINT: fingerprint_digest.encode()}
        pq.write_table(self._rows.replace_schema_metadata(metadata), buffer, compression="zstd")
        content = buffer.getvalue().to_pybytes()
        marks = len(self._rows["shard"].unique())
        name = f"{CATALOGUE_FOLDER}/{marks:08d}-{hashlib.sha256(content).hexdigest()}{_CATALOGUE_SUFFIX}"
        storage.write(name, content)
        for older in storage.entries(CATALOGUE_FOLDER):
            if older.name != name:
                storage.delete(older.name)

    def __len__(self) -> int:
        return len(self._newest)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._newest

    def ids(self, *, ok: bool | None = None) -> tuple[str, ...]:
        """Return the ids of all videos, of those with features or of those without, in the order of writing."""
        if ok is None:
            return tuple(self._newest)
        is_ok = self._ok.tolist()
        return tuple(video_id for video_id, line in self._newest.items() if is_ok[line] == ok)

    def locate(self, video_id: str) -> Location | None:
        """Return where a video's newest row lies, or None when there is none."""
        line = self._newest.get(video_id)
        if line is None:
            return None
        cell = {name: self._rows[name][line].as_py() for name in ("shard", "entry", "slot", "frames")}
        return Location(video_id=video_id, ok=bool(self._ok[line]), **cell)

    def is_ok(self, video_id: str) -> bool:
        """Whether a video has features."""
        line = self._newest.get(video_id)
        return line is not None and bool(self._ok[line])

    def failed_row(self, video_id: str) -> VideoRow:
        """Return the newest row of a video of this catalogue that failed."""
        return VideoRow.model_validate_json(self._rows["failed_row"][self._newest[video_id]].as_py())

    def is_unchanged(self, video_id: str, path: Path) -> bool | None:
        """Whether the file of a video of this catalogue is the one its newest row speaks of; None when it is gone.

        Args:
            video_id: The video's.
            path: Of its file now.
        """
        line = self._newest[video_id]
        size, mtime_ns = int(self._sizes[line]), int(self._times[line])
        try:
            stat = path.stat()
        except OSError:
            return True if size == ABSENT else None
        if (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns):
            return True
        return SourceStamp.of(path).same_content_as(self._stamp(line))

    def count(self) -> tuple[int, int, dict[str, int]]:
        """Return how many videos have features, how many frames these have, and how many failed by reason."""
        lines = np.fromiter(self._newest.values(), np.int64, len(self._newest))
        newest = self._rows.take(pa.array(lines))
        ok = newest.filter(newest["ok"])
        failed = newest.filter(pa.array(~self._ok[lines]))
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
        ok = self._ok.tolist()
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
        return same_content or (before.size, before.mtime_ns) == (after.size, after.mtime_ns)

    def _stamp(self, line: int) -> SourceStamp:
        return SourceStamp(**{name: self._rows[name][line].as_py() for name in ("path", "size", "mtime_ns", "sha256")})


def lines_of_mark(name: str, sealed: bytes, where: str, fingerprint_digest: str) -> pa.Table:
    """Return the catalogue's lines for one mark.

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
    rows = mark["rows"]
    ok = [row["status"] == "ok" for row in rows]
    slots = np.cumsum([0, *ok])[:-1]
    data_bytes = sum(file["size"] for file in mark["files"].values())
    columns = {
        "video_id": [row["video_id"] for row in rows],
        "ok": ok,
        "reason": [row["reason"] for row in rows],
        "failed_row": [None if row["status"] == "ok" else json.dumps(row) for row in rows],
        "shard": [name] * len(rows),
        "entry": np.arange(len(rows), dtype=np.int32),
        "slot": slots.astype(np.int32),
        "frames": [row["extents"].get("frame", 0) for row in rows],
        **{key: [row["source"][key] for row in rows] for key in ("path", "size", "mtime_ns", "sha256")},
        "mark_bytes": [len(sealed)] * len(rows),
        "data_bytes": [data_bytes] * len(rows),
    }
    return pa.table(columns, schema=_COLUMNS)


def _read_marks(
    storage: Storage, names: Sequence[str], fingerprint_digest: str
) -> Iterator[tuple[str, pa.Table | str]]:
    """Yield each mark's lines, or why it has none."""
    for name, sealed in zip(names, _contents(storage, names), strict=True):
        where = storage.describe(mark_file(name))
        if sealed is None:
            yield name, f"{where} is not there any more."
            continue
        try:
            yield name, lines_of_mark(name, sealed, where, fingerprint_digest)
        except CacheCorruptError as error:
            logger.warning("%s", error)
            yield name, error.what


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


def parse_index(base: str, content: bytes, fingerprint_digest: str) -> pa.Table | None:
    """Return the lines of a stored index; None when it is not whole, or not of these features.

    Args:
        base: The index's file name, which says its digest.
        content: Of the file.
        fingerprint_digest: Of the features in the cache.
    """
    if PurePosixPath(base).stem.partition("-")[2] != hashlib.sha256(content).hexdigest():
        return None
    table = pq.read_table(pa.BufferReader(content), use_threads=False)
    metadata = table.schema.metadata or {}
    is_ours = (metadata.get(_VERSION), metadata.get(_FINGERPRINT)) == (b"1", fingerprint_digest.encode())
    return table.replace_schema_metadata(None) if is_ours and table.schema.equals(_COLUMNS) else None


def _read_index(storage: Storage, fingerprint_digest: str) -> pa.Table:
    """Return the newest stored index that is whole and of these features; an empty one when there is none."""
    for listed in reversed(storage.entries(CATALOGUE_FOLDER)):
        with suppress(FileNotFoundError, CacheUnreachableError):
            table = parse_index(listed.base, storage.read(listed.name), fingerprint_digest)
            if table is not None:
                return table
    return _COLUMNS.empty_table()


def _of_marks(index: pa.Table, marks: dict[str, int]) -> pa.Table:
    """Return the lines of the index whose marks are there as it knows them."""
    firsts = index.filter(pa.array(index["entry"].to_numpy() == 0))
    stored = dict(zip(firsts["shard"].to_pylist(), firsts["mark_bytes"].to_pylist(), strict=True))
    gone = {name for name, size in stored.items() if marks.get(name) != size}
    if not gone:
        return index
    return index.filter(pa.array([name not in gone for name in index["shard"].to_pylist()], pa.bool_()))
