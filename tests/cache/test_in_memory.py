from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cache_material import arrays_of, data_files, failed, fill, usable

from diffvqa.cache._errors import CacheMissingError, MemoryLimitError, UnknownArrayError
from diffvqa.cache._in_memory import bytes_in_memory, load_into_memory
from diffvqa.cache._reader import FeatureCache


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    fill(tmp_path, usable("a", frames=3), failed("bad"), usable("b"), usable("c", frames=1))
    return FeatureCache(tmp_path)


def test_once_loaded_nothing_is_read_any_more(cache: FeatureCache, tmp_path: Path) -> None:
    videos = load_into_memory(cache, memory=10**6)
    for name in ("resize/latent", "crop/frames"):
        for file in data_files(tmp_path, name):
            file.unlink()
    assert videos.ids() == ("a", "b", "c")
    for video_id, frames in (("a", 3), ("b", 4), ("c", 1)):
        assert videos[video_id].row.video_id == video_id
        for name, array in arrays_of(video_id, frames).items():
            np.testing.assert_array_equal(videos[video_id][name], array)


def test_ids_come_in_the_order_asked_for_and_arrays_are_those_asked_for(cache: FeatureCache) -> None:
    videos = load_into_memory(cache, memory=10**6, ids=["c", "a", "c"], arrays=["crop/frames"])
    assert list(videos) == ["c", "a"]
    assert list(videos["a"]) == ["crop/frames"]


def test_what_does_not_fit_is_refused_before_anything_is_read(cache: FeatureCache, tmp_path: Path) -> None:
    needed = bytes_in_memory(cache, videos=3)
    assert len(load_into_memory(cache, memory=needed)) == 3
    for file in data_files(tmp_path, "crop/frames"):
        file.unlink()
    with pytest.raises(MemoryLimitError, match=f"3 videos of .* take up to {needed} bytes, {needed - 1} are allowed"):
        load_into_memory(cache, memory=needed - 1)


def test_what_is_not_there_is_named(cache: FeatureCache) -> None:
    with pytest.raises(CacheMissingError, match="'bad' could not be used"):
        load_into_memory(cache, memory=10**6, ids=["a", "bad"])
    with pytest.raises(UnknownArrayError, match="no array 'resize/frames'"):
        load_into_memory(cache, memory=10**6, arrays=["resize/frames"])
