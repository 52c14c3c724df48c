"""Filling a cache: one writer at a time, resumable, a shard at a time."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from diffvqa.cache.atomic import TEMPORARY_PREFIX
from diffvqa.cache.errors import CacheBusyError, CacheError
from diffvqa.cache.fingerprint import Fingerprint
from diffvqa.cache.lock import held_exclusively
from diffvqa.cache.reader import Catalogue
from diffvqa.cache.schema import HEADER_FILE, CacheHeader, SourceStamp, VideoRow, read_header, write_header
from diffvqa.cache.shards import SHARDS_FOLDER, ShardEntry, remove_unmarked, write_shard

logger = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
_DISCARDED_PREFIX = ".discarded-"


@dataclass(frozen=True)
class ResumePlan:
    """What an extraction still has to do.

    Attributes:
        pending: Ids to be done, in the order given.
        done: Ids whose features are there and fresh.
        failed_before: Rows of earlier failures that are left as they are.
        changed: Ids among the pending whose file changed since.
        vanished: Ids in the cache that were not asked for.
    """

    pending: tuple[str, ...]
    done: tuple[str, ...]
    failed_before: tuple[VideoRow, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]


class CacheWriter:
    """Holds a cache open for writing; use it as a context manager.

    On leaving, the videos added so far are published, also after Ctrl-C.

    Args:
        directory: The cache; made if absent.
        header: What it is to hold.
        shard_videos: Videos per shard: the unit of writing, and what a crash can cost.
        overwrite: Replace the features that are there, whatever made them.

    Raises:
        FingerprintMismatchError: The directory holds other features.
        CacheBusyError: Another process is writing there.
        CacheError: The directory holds something else.
        OutputError: The directory cannot be written.
    """

    def __init__(self, directory: Path, header: CacheHeader, *, shard_videos: int, overwrite: bool = False) -> None:
        self._directory = directory
        self._header = header
        self._shard_videos = shard_videos
        self._overwrite = overwrite
        self._buffer: list[ShardEntry] = []

    def __enter__(self) -> CacheWriter:
        busy = CacheBusyError(
            f"{self._directory} is being written by another process.", "Wait for it to end, then run this again."
        )
        with ExitStack() as held:
            held.enter_context(held_exclusively(self._directory / _LOCK_FILE, busy))
            self._open()
            self._held = held.pop_all()
        return self

    def _open(self) -> None:
        if (self._directory / HEADER_FILE).is_file() and not self._overwrite:
            stored = Fingerprint(read_header(self._directory).fingerprint)
            ways_out = "Choose another directory with --cache, or replace these features with --overwrite."
            Fingerprint(self._header.fingerprint).require_equal(stored, self._directory, ways_out)
        else:
            self._begin_anew()
        for discarded in self._directory.glob(f"{_DISCARDED_PREFIX}*"):
            shutil.rmtree(discarded)
        removed = remove_unmarked(self._directory)
        if removed:
            logger.info("removed %d unfinished shard(s) of an interrupted run", removed)
        self._catalogue = Catalogue(self._directory)
        self._next_shard = self._catalogue.next_shard_number

    def _begin_anew(self) -> None:
        """Put the header over an empty cache; cut short anywhere, this leaves no old shard under the new header."""
        shards = self._directory / SHARDS_FOLDER
        if not (self._directory / HEADER_FILE).is_file():
            ours = (_LOCK_FILE, _DISCARDED_PREFIX, TEMPORARY_PREFIX)
            if not all(path.name.startswith(ours) for path in self._directory.iterdir()):
                raise CacheError(
                    f"{self._directory} is not empty and no feature cache.", "Choose another with --cache."
                )
        elif shards.is_dir():
            shards.rename(self._directory / f"{_DISCARDED_PREFIX}{uuid.uuid4().hex[:8]}")
        write_header(self._directory, self._header)

    def plan(self, sources: Iterable[tuple[str, Path]], *, retry_failed: bool = False) -> ResumePlan:
        """Compare the videos asked for with what is there.

        Args:
            sources: (video id, path of its file) of every video of the data set.
            retry_failed: Try the earlier failures again.
        """
        pending, done, failed_before, changed, asked = [], [], [], [], set()
        for video_id, path in sources:
            asked.add(video_id)
            location = self._catalogue.locate(video_id)
            if location is None:
                pending.append(video_id)
            elif not location.row.source.same_content_as(SourceStamp.of(path)):
                changed.append(video_id)
                pending.append(video_id)
            elif location.row.status == "ok":
                done.append(video_id)
            elif retry_failed:
                pending.append(video_id)
            else:
                failed_before.append(location.row)
        vanished = [row.video_id for row in self._catalogue.rows() if row.video_id not in asked]
        return ResumePlan(tuple(pending), tuple(done), tuple(failed_before), tuple(changed), tuple(vanished))

    def add(self, entry: ShardEntry) -> None:
        """Add a video; every ``shard_videos`` of them are published together.

        Raises:
            OutputError: The shard cannot be written.
        """
        self._buffer.append(entry)
        if len(self._buffer) >= self._shard_videos:
            self.publish()

    def publish(self) -> None:
        """Write the videos added since the last shard as a shard of their own; nothing when there are none.

        Raises:
            OutputError: The shard cannot be written.
        """
        entries, self._buffer = self._buffer, []
        if not entries:
            return
        write_shard(self._directory, self._next_shard, entries, self._header.arrays)
        self._next_shard += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, KeyboardInterrupt):
                self.publish()
        finally:
            self._held.close()
