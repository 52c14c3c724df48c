from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cache_material import arrays_of, data_files, failed, fill, header, usable
from hypothesis import given, settings
from hypothesis import strategies as st

from diffvqa.cache._errors import CacheCorruptError, CacheMissingError, MemoryLimitError, UnknownArrayError
from diffvqa.cache._layout import video_length
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import ArraySpec
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._streaming import FeatureStream, Part
from diffvqa.cache._writer import CacheWriter

IDS = [f"v{number:02}" for number in range(23)]
PER_VIDEO = sum(map(video_length, header().arrays))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    folder = tmp_path_factory.mktemp("stream")
    entries = [usable(video_id, frames=1 + number % 4) for number, video_id in enumerate(IDS)]
    fill(folder, *entries[:10], failed("bad"), *entries[10:], shard_videos=5)
    return FeatureCache(folder)


def ids_of(stream: FeatureStream, epoch: int = 0) -> list[str]:
    return [video.row.video_id for video in stream.epoch(epoch)]


def test_without_a_seed_every_video_comes_once_in_the_order_of_writing_and_bit_for_bit(cache: FeatureCache) -> None:
    videos = list(FeatureStream(cache))
    assert [video.row.video_id for video in videos] == IDS
    for number, video in enumerate(videos):
        expected = arrays_of(video.row.video_id, 1 + number % 4)
        assert set(video) == set(expected)
        for name, array in expected.items():
            assert video[name].dtype == array.dtype
            np.testing.assert_array_equal(video[name], array)
            assert video[name].flags.writeable


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    memory=st.integers(3, 40),
    threads=st.integers(1, 4),
    count=st.integers(1, 6),
    wanted=st.sets(st.sampled_from(IDS)),
)
def test_parts_together_give_every_video_once_whatever_the_settings(
    cache: FeatureCache, seed: int, epoch: int, memory: int, threads: int, count: int, wanted: set[str]
) -> None:
    parts = [
        FeatureStream(cache, ids=wanted, seed=seed, memory=memory * PER_VIDEO, threads=threads, part=Part(index, count))
        for index in range(count)
    ]
    found = [ids_of(part, epoch) for part in parts]
    assert sorted(video_id for part in found for video_id in part) == sorted(wanted)
    assert [len(part) for part in found] == [len(part) for part in parts]
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_the_order_depends_on_seed_and_epoch_and_not_on_the_threads(cache: FeatureCache) -> None:
    memory = 13 * PER_VIDEO
    orders = {
        (seed, epoch): ids_of(FeatureStream(cache, seed=seed, memory=memory, threads=1), epoch)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(map(tuple, orders.values()))) == 4
    for (seed, epoch), order in orders.items():
        assert order != IDS
        assert ids_of(FeatureStream(cache, seed=seed, memory=memory, threads=4), epoch) == order


def test_a_buffer_as_large_as_the_cache_lets_any_video_come_first(cache: FeatureCache) -> None:
    stream = FeatureStream(cache, seed=0, memory=40 * PER_VIDEO)
    first = {ids_of(stream, epoch)[0] for epoch in range(150)}
    assert len(first) > len(IDS) // 2


LARGE = ArraySpec(
    name="resize/latent",
    dimensions=("frame", "channel"),
    shape=(4, 2**16),
    dtype="float16",
    unit="1",
    value_range=None,
    description="half a megabyte",
)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("most", [3, 10])
def test_no_more_bytes_are_held_than_allowed(tmp_path: Path, seed: int | None, most: int) -> None:
    described = header().model_copy(update={"arrays": (LARGE,)})
    with CacheWriter(tmp_path, described, shard_videos=8) as writer:
        for number in range(40):
            array = np.full(LARGE.shape, number, LARGE.dtype)
            writer.add(ShardEntry(usable(f"v{number}").row, {LARGE.name: array}))
    cache = FeatureCache(tmp_path)
    memory = most * video_length(LARGE)
    stream = FeatureStream(cache, seed=seed, memory=memory, threads=4)
    ids_of(stream)  # what is kept for good, such as the marks
    tracemalloc.start()
    try:
        for _ in stream:
            threading.Event().wait(0.01)  # time for the threads to read as far ahead as they dare
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (most - 2) * video_length(LARGE) < peak
    assert peak < memory + video_length(LARGE) / 2


def test_too_little_memory_for_three_videos_is_a_clear_error(cache: FeatureCache) -> None:
    with pytest.raises(MemoryLimitError, match=f"Allow {3 * PER_VIDEO} bytes or more"):
        FeatureStream(cache, memory=3 * PER_VIDEO - 1)
    assert ids_of(FeatureStream(cache, memory=3 * PER_VIDEO - 1, arrays=["resize/latent"])) == IDS


def test_only_the_arrays_asked_for_are_read(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"), usable("b"))
    for file in data_files(tmp_path, "crop/frames"):
        file.unlink()
    videos = list(FeatureStream(FeatureCache(tmp_path), arrays=["resize/latent"]))
    assert [list(video) for video in videos] == [["resize/latent"]] * 2


def test_what_is_not_there_is_said_before_anything_is_read(cache: FeatureCache) -> None:
    with pytest.raises(UnknownArrayError, match=r"no array 'latent'\. This cache has resize/latent, crop/frames"):
        FeatureStream(cache, arrays=["latent"])
    with pytest.raises(CacheMissingError, match="'bad' could not be used"):
        FeatureStream(cache, ids=["v00", "bad"])
    with pytest.raises(ValueError, match="part 2 of 2"):
        Part(2, 2)


def test_a_damaged_video_is_an_error_at_its_place_that_names_it(tmp_path: Path) -> None:
    fill(tmp_path, *map(usable, "abc"), shard_videos=3)
    (file,) = data_files(tmp_path, "resize/latent")
    content = bytearray(file.read_bytes())
    content[video_length(header().arrays[0])] ^= 1
    file.write_bytes(content)
    read: list[str] = []
    with pytest.raises(CacheCorruptError, match="'resize/latent' of video 'b' is damaged"):
        read.extend(video.row.video_id for video in FeatureStream(FeatureCache(tmp_path)))
    assert read == ["a"]


@pytest.mark.parametrize("seed", [None, 3])
def test_leaving_the_loop_ends_the_threads(cache: FeatureCache, seed: int | None) -> None:
    def readers() -> Sequence[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("diffvqa-stream")]

    for _ in FeatureStream(cache, seed=seed, memory=4 * PER_VIDEO):
        assert readers()
        break
    assert not readers()
