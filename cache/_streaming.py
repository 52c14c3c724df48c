"""Streaming a cache: every video once, shard after shard, read ahead, shuffled, within a stated amount of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from diffvqa.cache._errors import MemoryLimitError
from diffvqa.cache._layout import video_length
from diffvqa.cache._loaded import LoadedVideo, chosen_specs, load_video
from diffvqa.cache._reader import FeatureCache

DEFAULT_MEMORY = 256 * 2**20
_FEWEST_HELD = 3  # one being read, one waiting for its turn, one in the caller's hands
_SHARE_READ_AHEAD = 0.25


@dataclass(frozen=True)
class Part:
    """One of several equal parts of every epoch, such as that of one process out of many.

    Attributes:
        index: Which part, from 0.
        count: How many parts there are; their lengths differ by one video at most.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"part {self.index} of {self.count} does not exist")

    def of(self, items: Sequence[str]) -> Sequence[str]:
        """Return this part of ``items``."""
        return items[len(items) * self.index // self.count : len(items) * (self.index + 1) // self.count]


class FeatureStream:
    """The videos of a cache, each once per epoch, with the arrays asked for.

    Threads read ahead, shard after shard in the order of the disk. With a seed, the order of the shards is shuffled,
    and the videos pass through a buffer from which they leave in random order: the larger ``memory`` is, the better
    they are mixed. The order depends on the seed, the epoch, the part and ``memory``, and on nothing else.

    Args:
        cache: Where from.
        ids: Which videos; all with features when None. One that is named twice comes once.
        arrays: Names such as ``resize/latent``; all of the cache's when None.
        seed: Of the shuffling; the order of writing when None.
        memory: Most bytes of features held at any time, from the disk to the hands of the caller.
        threads: How many read side by side; one is enough for a disk, an object store wants 16.
        part: Which part of each epoch.

    Raises:
        CacheMissingError: A video has no features.
        MemoryLimitError: ``memory`` is not enough for three videos.
        UnknownArrayError: The cache has no array of that name.
    """

    def __init__(
        self,
        cache: FeatureCache,
        *,
        ids: Iterable[str] | None = None,
        arrays: Sequence[str] | None = None,
        seed: int | None = None,
        memory: int = DEFAULT_MEMORY,
        threads: int = 1,
        part: Part = Part(),
    ) -> None:
        specs = chosen_specs(cache.header.arrays, arrays)
        largest = sum(map(video_length, specs))
        if memory < _FEWEST_HELD * largest:
            raise MemoryLimitError(
                f"{memory} bytes are not enough to stream from {cache.url}: a video takes up to {largest}.",
                f"Allow {_FEWEST_HELD * largest} bytes or more, or ask for fewer arrays.",
            )
        self._cache = cache
        self._names = tuple(spec.name for spec in specs)
        self._shards = _by_shard(cache, cache.ids() if ids is None else ids)
        self._seed = seed
        self._most_waiting = memory // largest - 1  # all but the one in the caller's hands
        self._threads = threads
        self._part = part

    def __len__(self) -> int:
        """Return how many videos this part of an epoch has."""
        return len(self._in_order())

    def __iter__(self) -> Iterator[LoadedVideo]:
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[LoadedVideo]:
        """Return the videos of an epoch; the same ones in the same order each time it is asked for.

        Raises:
            CacheCorruptError: On reaching a video whose stored bytes are not what was written.
            CacheUnreachableError: The storage cannot be read.
        """
        if self._seed is None:
            return self._read(self._in_order(), self._most_waiting)
        order = np.random.default_rng((self._seed, number)).permutation(len(self._shards))
        ids = self._part.of([video_id for index in order for video_id in self._shards[index]])
        ahead = max(1, int(_SHARE_READ_AHEAD * self._most_waiting))
        generator = np.random.default_rng((self._seed, number, self._part.index))
        return _shuffled(self._read(ids, ahead), self._most_waiting - ahead, generator)

    def _in_order(self) -> Sequence[str]:
        return self._part.of([video_id for shard in self._shards for video_id in shard])

    def _read(self, ids: Sequence[str], ahead: int) -> Iterator[LoadedVideo]:
        """Yield videos in order, up to ``ahead`` of them read or being read before they are asked for."""
        pending: deque[Future[LoadedVideo]] = deque()
        following = iter(ids)
        with ThreadPoolExecutor(min(self._threads, ahead), "diffvqa-stream") as readers:
            try:
                while True:
                    for video_id in islice(following, ahead - len(pending)):
                        location = self._cache.locate(video_id)
                        pending.append(readers.submit(load_video, self._cache, location, self._names))
                    if not pending:
                        return
                    yield pending.popleft().result()
            finally:
                readers.shutdown(cancel_futures=True)


def in_disk_order(cache: FeatureCache, ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids, each once, in the order in which their features lie on the disk.

    Raises:
        CacheMissingError: A video has no features.
    """
    return tuple(video_id for shard in _by_shard(cache, ids) for video_id in shard)


def _by_shard(cache: FeatureCache, ids: Iterable[str]) -> list[list[str]]:
    """Return the ids in the order in which they lie on the disk, those of a shard together."""

    def place(video_id: str) -> tuple[str, int]:
        location = cache[video_id].location
        return location.shard, location.slot

    in_order = sorted(dict.fromkeys(ids), key=place)
    return [list(shard) for _, shard in groupby(in_order, key=lambda video_id: place(video_id)[0])]


def _shuffled(videos: Iterator[LoadedVideo], size: int, generator: np.random.Generator) -> Iterator[LoadedVideo]:
    """Yield the videos in random order, no more than ``size`` of them waiting for their turn."""
    waiting = list(islice(videos, size))
    while waiting:
        chosen = int(generator.integers(len(waiting)))
        waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
        yield waiting.pop()
        waiting.extend(islice(videos, 1))
