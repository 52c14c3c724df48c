from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from cache_material import SPECS, arrays_of, data_files, failed, fill, header, usable
from hypothesis import given, settings
from hypothesis import strategies as st

from diffvqa.cache.errors import CacheCorruptError, CacheMissingError, SchemaTooNewError
from diffvqa.cache.reader import FeatureCache
from diffvqa.cache.schema import SCHEMA_VERSION
from diffvqa.cache.writer import CacheWriter


@settings(max_examples=10, deadline=None)
@given(
    frame_counts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    shard_videos=st.integers(1, 4),
    unusable=st.sets(st.integers(0, 5)),
)
def test_what_was_written_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, frame_counts: list[int], shard_videos: int, unusable: set[int]
) -> None:
    directory = tmp_path_factory.mktemp("cache")
    entries = [
        failed(f"v{index}") if index in unusable else usable(f"v{index}", frames=frames)
        for index, frames in enumerate(frame_counts)
    ]
    fill(directory, *entries, shard_videos=shard_videos)
    cache = FeatureCache(directory)
    assert list(cache.ids()) == [entry.row.video_id for entry in entries if entry.arrays]
    assert [row.video_id for row in cache.failures()] == [entry.row.video_id for entry in entries if not entry.arrays]
    for entry in entries:
        for name, array in (entry.arrays or {}).items():
            stored = cache[entry.row.video_id][name]
            assert stored.dtype == array.dtype
            np.testing.assert_array_equal(stored, array)


def test_plain_zarr_reads_a_shard_by_the_names_in_the_header(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"), usable("b", frames=2))
    (shard,) = (tmp_path / "shards").glob("*.zarr")
    for spec in SPECS:
        array = zarr.open_array(shard / spec.name, mode="r")
        assert array.metadata.dimension_names == ("video", *spec.dimensions)  # type: ignore[union-attr]  # v3 metadata
        assert array.attrs["description"] == spec.description
        np.testing.assert_array_equal(array[1][:2], arrays_of("b", 2)[spec.name])  # type: ignore[index]
        assert not np.asarray(array[1])[2:].any()


def test_a_video_that_failed_says_why_when_it_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, usable("good"), failed("bad", reason="no_video_stream"))
    cache = FeatureCache(tmp_path)
    assert "bad" not in cache
    with pytest.raises(CacheMissingError, match="'bad' could not be used: no_video_stream"):
        cache["bad"]
    with pytest.raises(CacheMissingError, match="holds no video 'unheard-of'"):
        cache["unheard-of"]


@pytest.mark.parametrize("flip", range(6))
def test_a_flipped_bit_in_a_row_is_an_error_that_names_it_and_spares_the_others(tmp_path: Path, flip: int) -> None:
    fill(tmp_path, usable("a"), usable("b"))
    (file,) = data_files(tmp_path, "resize/latent")
    stored = bytearray(file.read_bytes())
    chunk_bytes = (len(stored) - 36) // 2  # two equally long chunks, then the index of the shard and its checksum
    stored[flip * chunk_bytes // 6] ^= 1
    file.write_bytes(stored)
    cache = FeatureCache(tmp_path)
    with pytest.raises(CacheCorruptError, match="'resize/latent' of video 'a' is damaged"):
        cache["a"]["resize/latent"]
    np.testing.assert_array_equal(cache["b"]["resize/latent"], arrays_of("b")["resize/latent"])
    np.testing.assert_array_equal(cache["a"]["crop/frames"], arrays_of("a")["crop/frames"])


def test_a_lost_file_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"), usable("b"))
    for file in data_files(tmp_path, "resize/latent"):
        file.unlink()
    with pytest.raises(CacheCorruptError, match="'resize/latent' of video 'a' is damaged"):
        FeatureCache(tmp_path)["a"]["resize/latent"]


def test_a_newer_schema_is_refused_clearly(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    path = tmp_path / "cache.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "schema_version": SCHEMA_VERSION + 1, "field_of_the_future": 1}))
    with pytest.raises(SchemaTooNewError, match=f"knows up to {SCHEMA_VERSION}"):
        FeatureCache(tmp_path)


def test_damaged_json_is_a_typed_error(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    (mark,) = (tmp_path / "shards").glob("*.json")
    mark.write_text(mark.read_text()[:-20])
    with pytest.raises(CacheCorruptError, match=mark.name):
        FeatureCache(tmp_path)
    mark.unlink()
    assert FeatureCache(tmp_path).ids() == ()
    fill(tmp_path, usable("a"))
    assert FeatureCache(tmp_path).ids() == ("a",)


def test_a_folder_without_a_cache_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="no feature cache"):
        FeatureCache(tmp_path)


def test_arrays_of_the_wrong_shape_or_type_never_reach_a_shard(tmp_path: Path) -> None:
    good = usable("a")
    assert good.arrays is not None
    wide = {**good.arrays, "resize/latent": np.zeros((4, 3, 2, 5), np.float16)}
    with CacheWriter(tmp_path, header(), shard_videos=9) as writer:
        writer.add(type(good)(good.row, wide))
        with pytest.raises(ValueError, match="resize/latent is float16"):
            writer.publish()
    assert FeatureCache(tmp_path).ids() == ()
