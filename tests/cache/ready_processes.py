"""Processes of their own that begin with what takes longest imported, and what tests let them do.

A server imports it once and is forked for each of them, where a new interpreter would import it again.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from cache_material import header, usable

from diffvqa.cache._export import Exported, FeatureExport, Labels
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._export_npz import export_npz
from diffvqa.cache._export_parquet import export_parquet
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._storage import ObjectStorage
from diffvqa.cache._streaming import FeatureStream
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter

FORMATS: dict[str, Callable[[FeatureExport, Path | str], Exported]] = {
    "h5": export_h5,
    "npz": export_npz,
    "parquet": export_parquet,
}

# The server runs no thread of Python's, which a fork could lose.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "pytest",
        "s3fs",
        "diffvqa.cache._writer",
        "diffvqa.cache._verify",
        "diffvqa.cache._streaming",
        "diffvqa.cache._export_h5",
        "diffvqa.cache._export_npz",
        "diffvqa.cache._export_parquet",
    ]
)


def everything(cache: FeatureCache) -> FeatureExport:
    """Return what exports all of a cache."""
    return FeatureExport(cache, labels=Labels(dict.fromkeys(cache.ids(), 1.0)), provenance={})


def export_again_and_again(name: str, location: Path, out: Path, begun: Connection) -> None:
    """Export to the same place until this process is killed; say when the first export begins."""
    cache = FeatureCache(location)
    begun.send(None)
    while True:
        FORMATS[name](everything(cache), out)


def add_and_die(url: str, ids: tuple[str, ...], deadly: int, environment: Mapping[str, str]) -> None:
    """Add the videos that are pending to a cache in an object store, but be killed before the PUT of this number."""
    os.environ.update(environment)
    write, written = ObjectStorage.write, 0

    def write_and_die(self: ObjectStorage, name: str, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, name, content)

    ObjectStorage.write = write_and_die  # type: ignore[method-assign]
    with CacheWriter(url, header(), shard_videos=2) as writer:
        for video_id in writer.plan([(video_id, Path("absent")) for video_id in ids]).pending:
            writer.add(usable(video_id))


def write_and_verify(location: Path, videos: int) -> int:
    """Write a cache and check it; return how many videos it has."""
    with CacheWriter(location, header(), shard_videos=8) as writer:
        for number in range(videos):
            writer.add(usable(f"video {number}"))
    return verify(location).videos


def read_or_export(task: str, location: Path, out: Path) -> int:
    """Stream a cache, or export it in the format that ``task`` names; return how many videos there were."""
    cache = FeatureCache(location)
    if task == "stream":
        return sum(1 for _ in FeatureStream(cache, seed=0, memory=2**16))
    return FORMATS[task](everything(cache), out / task).videos


def peak_memory(work: Callable[..., int], *arguments: object) -> tuple[int, int]:
    """Do something in a process of its own; return its result, and the most memory the process took, in KiB.

    A new interpreter would not do: Linux counts the memory of the process that started it as its own.
    """
    receives, sends = processes.Pipe(duplex=False)
    process = processes.Process(target=_do_and_measure, args=(sends, work, arguments))
    process.start()
    sends.close()
    result, peak = receives.recv()
    process.join()
    return result, peak


def _do_and_measure(sends: Connection, work: Callable[..., int], arguments: tuple[object, ...]) -> None:
    result = work(*arguments)
    sends.send((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
