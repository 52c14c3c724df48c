"""The features as PyTorch data sets, for training scripts of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from diffvqa.cache._in_memory import FeaturesInMemory
from diffvqa.cache._loaded import LoadedVideo, chosen_specs, load_video
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import ArraySpec
from diffvqa.cache._streaming import DEFAULT_MEMORY, FeatureStream, Part

Item = dict[str, Any]


class FeatureDataset(Dataset[Item]):
    """The videos of a cache as items with random access, by number or by video id.

    An item has ``video_id`` (str), ``frames`` (int), ``target`` (float, where targets are given), and under each
    array's name a tensor of the cache's type and full shape, zero after the video's own frames and crops: items can
    be put together by PyTorch's default collation. ``crops`` (int) is there when an array has crops.

    It can be sent to workers that were started with spawn: from a cache they open it anew, from features in memory each
    of them gets a copy.

    Args:
        features: A cache, or what :func:`load_into_memory` gave.
        ids: Which videos, in this order. When None: all that have a target, or all if no targets are given.
        arrays: Names such as ``resize/latent``; all when None.
        targets: Video id -> what is to be learnt.

    Raises:
        KeyError: A video has no target.
        UnknownArrayError: There is no array of that name.
    """

    def __init__(
        self,
        features: FeatureCache | FeaturesInMemory,
        *,
        ids: Iterable[str] | None = None,
        arrays: Sequence[str] | None = None,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        self.ids = _ids(features, ids, targets)
        self._features = features
        self._specs = chosen_specs(features.header.arrays, arrays)
        self._targets = None if targets is None else {video_id: targets[video_id] for video_id in self.ids}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | str) -> Item:
        """Return the item of the ``key``-th video, or of the video with this id.

        Raises:
            IndexError: There is no such number.
            CacheMissingError: The video has no features.
            CacheCorruptError: Stored bytes are not what was written.
        """
        video_id = key if isinstance(key, str) else self.ids[key]
        if isinstance(self._features, FeatureCache):
            video = load_video(self._features, self._features[video_id].location, [spec.name for spec in self._specs])
        else:
            video = self._features[video_id]
        return _item(video, self._specs, self._targets)


class FeatureStreamDataset(IterableDataset[Item]):
    """The videos of a cache as a stream of items, for caches larger than the memory.

    Items are those of :class:`FeatureDataset`. Each video comes once per epoch over all processes and their workers.
    Call :meth:`set_epoch` before each epoch for another order.

    Args:
        cache: Where from.
        ids: As for :class:`FeatureDataset`, but for their order.
        arrays: Names such as ``resize/latent``; all when None.
        targets: Video id -> what is to be learnt.
        seed: Of the shuffling; the order of writing when None.
        memory: Most bytes of features that the workers of one process hold together, as :class:`FeatureStream` counts.
        threads: How many read side by side in each worker.
        rank: Number of this process among those that train together.
        world_size: How many processes train together; each gets as many videos as the others, or one more.

    Raises:
        CacheMissingError: A video has no features.
        KeyError: A video has no target.
        MemoryLimitError: On iterating: ``memory`` is not enough for three videos in each worker.
        UnknownArrayError: There is no array of that name.
    """

    def __init__(
        self,
        cache: FeatureCache,
        *,
        ids: Iterable[str] | None = None,
        arrays: Sequence[str] | None = None,
        targets: Mapping[str, float] | None = None,
        seed: int | None = None,
        memory: int = DEFAULT_MEMORY,
        threads: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._cache = cache
        self._ids = _ids(cache, ids, targets)
        self._specs = chosen_specs(cache.header.arrays, arrays)
        self._targets = None if targets is None else {video_id: targets[video_id] for video_id in self._ids}
        self._seed = seed
        self._memory = memory
        self._threads = threads
        self._process = Part(rank, world_size)
        # Shared memory: workers that outlive an epoch see the number of the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, number: int) -> None:
        """Choose which epoch the next iteration gives, in this process and in its workers."""
        self._epoch.fill_(number)

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        stream = FeatureStream(
            self._cache,
            ids=self._ids,
            arrays=[spec.name for spec in self._specs],
            seed=self._seed,
            memory=self._memory // count,
            threads=self._threads,
            part=Part(self._process.index * count + index, self._process.count * count),
        )
        for video in stream.epoch(int(self._epoch)):
            yield _item(video, self._specs, self._targets)


def _ids(
    features: FeatureCache | FeaturesInMemory, ids: Iterable[str] | None, targets: Mapping[str, float] | None
) -> tuple[str, ...]:
    if ids is not None:
        return tuple(dict.fromkeys(ids))
    return tuple(video_id for video_id in features.ids() if targets is None or video_id in targets)


def _item(video: LoadedVideo, specs: Sequence[ArraySpec], targets: Mapping[str, float] | None) -> Item:
    item: Item = {"video_id": video.row.video_id, **{f"{name}s": extent for name, extent in video.row.extents.items()}}
    for spec in specs:
        array = video[spec.name]
        if array.shape != spec.shape:
            full = np.zeros(spec.shape, array.dtype)
            full[tuple(map(slice, array.shape))] = array
            array = full
        item[spec.name] = torch.from_numpy(array)
    if targets is not None:
        item["target"] = targets[video.row.video_id]
    return item
