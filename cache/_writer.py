"""Filling a cache: one run at a time, resumable, a shard at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from diffvqa.cache._catalogue import CATALOGUE_FOLDER, Catalogue, read_marks, store_part
from diffvqa.cache._errors import CacheCorruptError, CacheError, CacheMissingError
from diffvqa.cache._run_lock import WRITERS_FOLDER, Run, begin_run
from diffvqa.cache._schema import (
    HEADER_FILE,
    CacheHeader,
    SourceStamp,
    VideoRow,
    read_header,
    require_same_features,
    write_header,
)
from diffvqa.cache._shards import (
    ShardEntry,
    ShardWriter,
    StagedShard,
    list_marks,
    mark_file,
    publish_mark,
    remove_unmarked,
    run_of,
)
from diffvqa.cache._source_files import is_url, look_up_all
from diffvqa.cache._storage import Storage, is_ours, open_storage

logger = logging.getLogger(__name__)

_INDEX_AT_LEAST_EVERY = 32
_WAYS_OUT = "Choose another directory with --cache, or replace these features with --overwrite."


@dataclass(frozen=True)
class ResumePlan:
    """What an extraction still has to do.

    Attributes:
        pending: Ids to be done, in the order given.
        done: Ids whose features are there and fresh.
        failed_before: Rows of earlier failures that are left as they are.
        new: Ids among the pending that the cache does not know.
        changed: Ids among the pending whose file changed since.
        gone: Ids among the done whose file is not there any more.
        vanished: Ids in the cache that were not asked for.
    """

    pending: tuple[str, ...]
    done: tuple[str, ...]
    failed_before: tuple[VideoRow, ...]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    vanished: tuple[str, ...]


class CacheWriter:
    """Holds a cache open for writing; use it as a context manager.

    On leaving, the videos added so far are published, also after Ctrl-C. Other processes may publish into the same
    cache meanwhile, each with a ``ShardWriter`` of its own in the name of this writer's ``run``.

    Args:
        location: The cache's folder or URL; made if absent.
        header: What it is to hold.
        shard_videos: Videos per shard: the unit of writing, and what a crash can cost.
        overwrite: Replace the features that are there, whatever made them.

    Attributes:
        storage: Where the cache lies.
        header: What it holds; once it is open, the header that is stored there.
        run: The right to publish there, once it is open; it ends when this is left.

    Raises:
        FingerprintMismatchError: Other features are there.
        CacheBusyError: Another process is writing there.
        CacheError: Something else is there.
        OutputError: The place cannot be written to.
        CacheUnreachableError: The place cannot be read.
    """

    def __init__(
        self, location: Path | str, header: CacheHeader, *, shard_videos: int, overwrite: bool = False
    ) -> None:
        self.storage = open_storage(location)
        self.header = header
        self._shard_videos = shard_videos
        self._overwrite = overwrite
        self.run: Run
        self._buffer: list[ShardEntry] = []

    def __enter__(self) -> CacheWriter:
        # Refused before anything is written there, this run's own lock included.
        self._settled_header()
        with ExitStack() as held:
            self.run = held.enter_context(begin_run(self.storage, at_least=self._next_run))
            self._open()
            self._held = held.pop_all()
        return self

    def _next_run(self) -> int:
        return 1 + max(map(run_of, list_marks(self.storage)), default=-1)

    def _open(self) -> None:
        if self._overwrite:
            _discard_marks(self.storage)
            write_header(self.storage, self.header)
        else:
            stored = self._settled_header()
            if stored is None:
                write_header(self.storage, self.header)
            else:
                self.header = stored
        removed = remove_unmarked(self.storage)
        if removed:
            logger.info("removed %d unfinished shard(s) of an interrupted run", removed)
        self._shards = ShardWriter(self.storage, self.header, self.run)
        self._catalogue = Catalogue.load(self.storage, self.header.fingerprint_digest)
        if not self._catalogue.is_compact:
            self._catalogue.store(self.storage, self.header.fingerprint_digest)
        self._indexed = {*self._catalogue.shards(), *self._catalogue.damaged}
        self._not_indexed = 0

    def _settled_header(self) -> CacheHeader | None:
        """Return the header that is there, or None where it is to be written; refuse what is no place for it."""
        storage = self.storage
        try:
            stored = read_header(storage)
        except CacheMissingError:
            strangers = [
                listed for listed in storage.entries() if not is_ours(listed) and listed.name != WRITERS_FOLDER
            ]
            if strangers and not self._is_ours_by_marks():
                what = f"{storage.describe()} is not empty and no feature cache."
                raise CacheError(what, "Choose another with --cache.") from None
            return None
        except CacheCorruptError:
            if not self._overwrite and not self._is_ours_by_marks():
                raise
            logger.warning("%s is damaged; it is written anew", storage.describe(HEADER_FILE))
            return None
        if not self._overwrite:
            require_same_features(self.header, stored, storage.describe(), _WAYS_OUT)
        return stored

    def _is_ours_by_marks(self) -> bool:
        """Whether there are shards, and every one says that it holds the features asked for."""
        marks = list_marks(self.storage)
        catalogue = Catalogue.load(self.storage, self.header.fingerprint_digest)
        return bool(marks) and not catalogue.damaged

    def plan(self, sources: Iterable[tuple[str, Path | str]], *, retry_failed: bool = False) -> ResumePlan:
        """Compare the videos asked for with what is there.

        Args:
            sources: (video id, path or URL of its file) of every video of the data set.
            retry_failed: Try the earlier failures again.

        Raises:
            CacheUnreachableError: The server of such a URL does not answer.
        """
        catalogue, sources = self._catalogue, tuple(sources)
        known = (str(place) for video_id, place in sources if is_url(place) and video_id in catalogue)
        at_urls = {url: SourceStamp.listed(url, found) for url, found in look_up_all(known).items()}
        pending, done, failed, new, changed, gone = [], [], [], [], [], []
        asked = set()
        for video_id, path in sources:
            asked.add(video_id)
            if video_id not in catalogue:
                new.append(video_id)
                pending.append(video_id)
                continue
            is_ok = catalogue.is_ok(video_id)
            is_unchanged = catalogue.is_unchanged(video_id, path, at_urls.get(str(path)) if at_urls else None)
            if is_ok and is_unchanged is None:
                gone.append(video_id)
                done.append(video_id)
            elif not is_unchanged:
                changed.append(video_id)
                pending.append(video_id)
            elif is_ok:
                done.append(video_id)
            elif retry_failed:
                pending.append(video_id)
            else:
                failed.append(video_id)
        return ResumePlan(
            pending=tuple(pending),
            done=tuple(done),
            failed_before=tuple(map(catalogue.failed_row, failed)),
            new=tuple(new),
            changed=tuple(changed),
            gone=tuple(gone),
            vanished=tuple(video_id for video_id in catalogue.ids() if video_id not in asked),
        )

    def add(self, entry: ShardEntry) -> None:
        """Add a video; every ``shard_videos`` of them are published together.

        Raises:
            OutputError: The shard cannot be written.
            CacheBusyError: Another run has taken over.
        """
        self._buffer.append(entry)
        if len(self._buffer) >= self._shard_videos:
            self.publish()

    def publish(self) -> None:
        """Write the videos added since the last shard as a shard of their own; nothing when there are none.

        Raises:
            OutputError: The shard cannot be written.
            CacheBusyError: Another run has taken over.
        """
        entries, self._buffer = self._buffer, []
        if entries:
            self._shards.write(entries)
            self._count_published()

    def publish_staged(self, staged: StagedShard) -> None:
        """Publish a shard that a worker of this run has written; its rows exist from now on.

        Raises:
            OutputError: Its mark cannot be written; the shard is removed.
            CacheBusyError: Another run has taken over; the shard is removed.
        """
        publish_mark(self.storage, self.run, staged.name, staged.mark)
        self._count_published()

    def remove_unpublished(self) -> None:
        """Remove the data of shards without a mark; only when no worker of this run writes any more.

        Raises:
            OutputError: Something cannot be removed.
        """
        remove_unmarked(self.storage)

    def _count_published(self) -> None:
        self._not_indexed += 1
        if self._not_indexed >= max(_INDEX_AT_LEAST_EVERY, len(self._indexed) // 8):
            self.index()

    def index(self) -> None:
        """Add the shards published since to the stored index, those of other processes included.

        It is done now and then and on leaving; an index that is behind costs the next run a second per 1,000 shards.

        Raises:
            OutputError: It cannot be written.
        """
        new = [name for name in list_marks(self.storage) if name not in self._indexed]
        rows, _ = read_marks(self.storage, new, self.header.fingerprint_digest)
        if len(rows):
            store_part(self.storage, rows, self.header.fingerprint_digest)
        self._indexed.update(new)
        self._not_indexed = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, KeyboardInterrupt):
                self.publish()
                self.index()
        finally:
            self._held.close()


def _discard_marks(storage: Storage) -> None:
    """Make the shards of a cache invisible; cut short anywhere, this leaves a smaller cache of the same features."""
    storage.delete(CATALOGUE_FOLDER)
    for name in list_marks(storage):
        storage.delete(mark_file(name))
