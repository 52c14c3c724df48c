from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from cache_material import MOST_FRAMES, SPECS, arrays_of, failed, fill, usable
from torch.utils.data import DataLoader

from diffvqa.cache._errors import CacheMissingError, UnknownArrayError
from diffvqa.cache._in_memory import load_into_memory
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._torch_data import FeatureDataset, FeatureStreamDataset

IDS = [f"v{number:02}" for number in range(11)]
FRAMES = {video_id: 1 + number % MOST_FRAMES for number, video_id in enumerate(IDS)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    folder = tmp_path_factory.mktemp("torch")
    fill(folder, *(usable(video_id, frames=frames) for video_id, frames in FRAMES.items()), failed("bad"))
    return FeatureCache(folder)


def assert_right(item: dict[str, Any]) -> None:
    """The item holds what was written, and zeros after it."""
    frames = FRAMES[item["video_id"]]
    assert (item["frames"], item["crops"]) == (frames, 2)
    for spec in SPECS:
        expected = torch.from_numpy(arrays_of(item["video_id"], frames)[spec.name])
        assert item[spec.name].shape == spec.shape
        assert torch.equal(item[spec.name][:frames], expected)
        assert not item[spec.name][frames:].any()


def assert_right_batch(batch: dict[str, Any]) -> None:
    for number, video_id in enumerate(batch["video_id"]):
        item = {name: values[number] for name, values in batch.items()}
        assert_right({**item, "video_id": video_id, "frames": int(item["frames"]), "crops": int(item["crops"])})


@pytest.mark.parametrize("in_memory", [False, True])
def test_items_are_found_by_number_and_by_id(cache: FeatureCache, in_memory: bool) -> None:
    dataset = FeatureDataset(load_into_memory(cache, memory=10**6) if in_memory else cache)
    assert dataset.ids == tuple(IDS)
    assert len(dataset) == len(IDS)
    for number, video_id in enumerate(IDS):
        assert dataset[number]["video_id"] == video_id
        assert_right(dataset[number])
        assert_right(dataset[video_id])
    with pytest.raises(IndexError):
        dataset[len(IDS)]


def test_targets_choose_the_videos_and_stand_in_the_items(cache: FeatureCache) -> None:
    targets = {"v03": 1.5, "v01": 2.5, "not there": 9.0, "bad": 8.0}
    dataset = FeatureDataset(cache, targets=targets, arrays=["resize/latent"])
    assert dataset.ids == ("v01", "v03")
    assert [dataset[number]["target"] for number in range(2)] == [2.5, 1.5]
    assert set(dataset[0]) == {"video_id", "frames", "crops", "resize/latent", "target"}
    with pytest.raises(KeyError, match="v02"):
        FeatureDataset(cache, ids=["v02"], targets=targets)
    with pytest.raises(UnknownArrayError):
        FeatureDataset(cache, arrays=["latent"])
    with pytest.raises(CacheMissingError, match="'bad' could not be used"):
        FeatureDataset(cache, ids=["bad"])[0]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_pickled_data_set_gives_the_same_items(cache: FeatureCache, in_memory: bool) -> None:
    dataset = FeatureDataset(load_into_memory(cache, memory=10**6) if in_memory else cache, targets={"v02": 1.0})
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301  # as spawn does, from our own bytes
    assert again.ids == ("v02",)
    assert_right(again[0])


def test_a_spawned_worker_reads_every_video_once(cache: FeatureCache) -> None:
    loader = DataLoader(
        FeatureDataset(cache), batch_size=4, shuffle=True, num_workers=1, multiprocessing_context="spawn"
    )
    batches = list(loader)
    assert sorted(video_id for batch in batches for video_id in batch["video_id"]) == IDS
    for batch in batches:
        assert_right_batch(batch)


def test_spawned_workers_share_a_stream_and_see_the_epoch(cache: FeatureCache) -> None:
    dataset = FeatureStreamDataset(cache, seed=1)
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="spawn", persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        batches = list(loader)
        for batch in batches:
            assert_right_batch(batch)
        orders.append([video_id for batch in batches for video_id in batch["video_id"]])
    assert [sorted(order) for order in orders] == [IDS] * 3
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("world_size", [1, 3])
def test_processes_share_an_epoch_evenly(cache: FeatureCache, world_size: int) -> None:
    targets = {video_id: float(number) for number, video_id in enumerate(IDS)}
    parts = [
        list(FeatureStreamDataset(cache, seed=5, targets=targets, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    items = [item for part in parts for item in part]
    assert Counter(item["video_id"] for item in items) == Counter(IDS)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for item in items:
        assert_right(item)
        assert item["target"] == targets[item["video_id"]]
