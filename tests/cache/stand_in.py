"""A stand-in for an extraction: the cache's own side of it, without a model; made to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from cache_material import header, usable
from ready_processes import processes

from diffvqa.cache._errors import CacheError, OutputError
from diffvqa.cache._shards import ShardWriter
from diffvqa.cache._writer import CacheWriter

SHARD_VIDEOS = 3
VIDEOS = tuple(f"video {number:02d}" for number in range(20))
REFUSED = 3


def extract(directory: Path, log: Path, *, seconds_per_video: float = 0.0) -> None:
    """Extract what is pending, in this process."""
    with CacheWriter(directory, header(), shard_videos=SHARD_VIDEOS) as writer:
        for video_id in writer.plan([(video_id, Path("absent")) for video_id in VIDEOS]).pending:
            _note(log, video_id)
            time.sleep(seconds_per_video)
            writer.add(usable(video_id))


def extract_with_workers(directory: Path, log: Path, *, workers: int, seconds_per_video: float = 0.0) -> None:
    """Extract what is pending in worker processes that publish shards of their own, this one holding the run."""
    with CacheWriter(directory, header(), shard_videos=SHARD_VIDEOS) as writer:
        pending = writer.plan([(video_id, Path("absent")) for video_id in VIDEOS]).pending
        fork = multiprocessing.get_context("fork")
        started = [
            fork.Process(target=_work, args=(writer, log, pending[number::workers], seconds_per_video))
            for number in range(workers)
        ]
        for worker in started:
            worker.start()
        for worker in started:
            worker.join()
        if any(worker.exitcode for worker in started):
            raise CacheError("a worker failed")


def _work(writer: CacheWriter, log: Path, video_ids: tuple[str, ...], seconds_per_video: float) -> None:
    shards = ShardWriter(writer.storage, writer.header, writer.run)
    for first in range(0, len(video_ids), SHARD_VIDEOS):
        entries = []
        for video_id in video_ids[first : first + SHARD_VIDEOS]:
            _note(log, video_id)
            time.sleep(seconds_per_video)
            entries.append(usable(video_id))
        shards.write(entries)


def start(target: Callable[..., None], directory: Path, log: Path, **options: object) -> BaseProcess:
    """Run a function in a process of its own, at the head of a group of its own; a refusal is a line in ``errors``."""
    process = processes.Process(target=_lead_group, args=(target, directory, log, options))
    process.start()
    return process


def _lead_group(target: Callable[..., None], directory: Path, log: Path, options: dict[str, object]) -> None:
    os.setsid()
    try:
        target(directory, log, **options)
    except (CacheError, OutputError) as error:
        _note(errors_of(log), str(error))
        sys.exit(REFUSED)


def errors_of(log: Path) -> Path:
    """Where the errors of the processes with this log stand, one a line."""
    return log.with_suffix(".errors")


def kill_group(process: BaseProcess) -> bool:
    """Kill a process with all its workers; return whether it still ran."""
    assert process.pid is not None
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not got so far as to lead a group
            process.kill()
    process.join()
    # Workers share the lock of the process that they were forked from, and may take a moment longer to die.
    while _lives(process.pid):
        time.sleep(0.001)
    return process.exitcode == -signal.SIGKILL


def _lives(group: int) -> bool:
    """Return whether a process of a group is more than a zombie, which nobody may wait for."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def redone(log: Path) -> int:
    """Return how many videos were begun a second time or more."""
    begun = Counter(log.read_text().splitlines()) if log.exists() else Counter[str]()
    assert set(begun) <= set(VIDEOS)
    return begun.total() - len(begun)


def _note(log: Path, line: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
