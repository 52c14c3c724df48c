"""Work for engines that needs no video and no model: features made from ids, and misbehaviour by id."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cache_material import digests, header, usable

from diffvqa.cache._run_lock import Run
from diffvqa.cache._schema import CacheHeader
from diffvqa.cache._shards import ShardEntry, ShardWriter, StagedShard
from diffvqa.cache._storage import open_storage
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._engines.interface import DoneUnit, Engine, Place, WorkUnit, ignore_video
from diffvqa.pipeline._extract import PublishedUnits, publish_units, work_units
from diffvqa.pipeline._extraction_task import ExtractionTask
from diffvqa.stages._decoding import VideoSource
from diffvqa.stages._failures import FailureReason

VIDEOS = tuple(f"video {number:03d}" for number in range(40))
SHARD_VIDEOS = 4


@dataclass(frozen=True)
class StubTask:
    """Features of a video are made from its id alone.

    Attributes:
        location: Of the cache.
        header: Of the cache.
        run: In whose name.
        seconds: That computing a unit takes; nobody else computes in the same worker meanwhile.
        deadly: Ids that end the process with a segmentation fault.
        log: File that gets a line for each unit that is begun; none when empty.
    """

    location: str
    header: CacheHeader
    run: Run
    seconds: float = 0.0
    deadly: frozenset[str] = frozenset()
    log: str = ""

    @contextmanager
    def open(self, place: Place) -> Iterator[StubWorker]:
        yield StubWorker(self, place)


@dataclass
class StubWorker:
    task: StubTask
    place: Place
    computes: threading.Lock = field(default_factory=threading.Lock)

    def do(self, unit: WorkUnit) -> StagedShard:
        entries = [self._entry(video, unit) for video in unit.videos]
        if self.task.log:
            note_unit(Path(self.task.log), unit)
        with self.computes:
            time.sleep(self.task.seconds)
        writer = ShardWriter(open_storage(self.task.location), self.task.header, self.task.run)
        return writer.stage(entries, unit.number)

    def rehearse(self, video: VideoSource) -> None:
        self._entry(video, WorkUnit(0, (video,)))

    def stop(self) -> None:
        pass

    def _entry(self, video: VideoSource, unit: WorkUnit) -> ShardEntry:
        entry = usable(video.video_id)
        if video.video_id in unit.given_up:
            update = {"status": "failed", "reason": str(FailureReason.CRASHED), "frame_indices": (), "timestamps": ()}
            return ShardEntry(entry.row.model_copy(update=update), None)
        if video.video_id in self.task.deadly:
            ctypes.string_at(0)
        self.place.on_video(False)
        return entry


@dataclass(frozen=True)
class NotedExtraction(ExtractionTask):
    """The real work; a unit goes on when as many processes as ``together`` have begun one, which ``log`` tells."""

    log: str = ""
    together: int = 1

    @contextmanager
    def open(self, place: Place) -> Iterator[Any]:
        with super().open(place) as worker:
            do = worker.do

            def noted(unit: WorkUnit) -> StagedShard:
                note_unit(Path(self.log), unit, together=self.together)
                return do(unit)

            worker.do = noted  # type: ignore[method-assign]
            yield worker


def noted_by(log: Path, *, together: int) -> Callable[..., NotedExtraction]:
    """What to put in the place of ``ExtractionTask``."""
    return partial(NotedExtraction, log=str(log), together=together)


def note_unit(log: Path, unit: WorkUnit, together: int = 1) -> None:
    """Note that this process has begun a unit; return when so many processes have begun one."""
    note(log, f"{os.getpid()} {unit.number}")
    deadline = time.monotonic() + 300
    while len(processes_in(log)) < together and time.monotonic() < deadline:
        time.sleep(0.05)


def processes_in(log: Path) -> set[str]:
    return {line.split()[0] for line in log.read_text().splitlines()}


def note(log: Path, line: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def extract_stub(
    location: Path | str,
    engine: Engine,
    *,
    videos: Sequence[str] = VIDEOS,
    seconds: float = 0.0,
    deadly: frozenset[str] = frozenset(),
    log: str = "",
    on_video: Callable[[bool], None] = ignore_video,
    on_done: Callable[[DoneUnit], None] = lambda _done: None,
    shard_videos: int = SHARD_VIDEOS,
) -> PublishedUnits:
    """Extract what is pending, as the verb does."""
    with CacheWriter(location, header(), shard_videos=shard_videos) as writer:
        pending = writer.plan([(video_id, "absent") for video_id in videos]).pending
        task = StubTask(str(location), writer.header, writer.run, seconds, deadly, log)
        files: Mapping[str, str] = dict.fromkeys(pending, "absent")
        with engine:
            units = engine.run(task, work_units(pending, files, shard_videos), on_video)

            def watched() -> Iterator[DoneUnit]:
                for done in units:
                    on_done(done)
                    yield done

            return publish_units(writer, watched())


def published(location: Path | str) -> list[str]:
    """The ids of all rows of all marks: one of each, if nothing was published twice."""
    from diffvqa.cache._schema import parse_mark
    from diffvqa.cache._shards import list_marks, mark_file

    storage = open_storage(location)
    marks = (parse_mark(storage.read(mark_file(name)), name) for name in list_marks(storage))
    return sorted(row.video_id for mark in marks for row in mark.rows)


__all__ = ["SHARD_VIDEOS", "VIDEOS", "StubTask", "digests", "extract_stub", "published"]
