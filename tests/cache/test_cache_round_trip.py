from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from cache_material import MOST_FRAMES, SPECS, arrays_of, data_files, failed, fill, header, mark_files, usable
from hypothesis import given, settings
from hypothesis import strategies as st

from diffvqa.cache._errors import CacheCorruptError, CacheMissingError, SchemaTooNewError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SCHEMA_VERSION
from diffvqa.cache._sealed import seal
from diffvqa.cache._writer import CacheWriter


@settings(max_examples=10)
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
    group = zarr.open(shard, mode="r")
    assert isinstance(group, zarr.Group)
    assert dict(group.members(max_depth=None)).keys() == {"resize", "crop", *(spec.name for spec in SPECS)}
    for spec in SPECS:
        array = zarr.open_array(shard / spec.name, mode="r")
        assert array.metadata.dimension_names == ("video", *spec.dimensions)  # type: ignore[union-attr]  # v3 metadata
        value_range = None if spec.value_range is None else list(spec.value_range)
        assert dict(array.attrs) == {"description": spec.description, "unit": spec.unit, "value_range": value_range}
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


@pytest.mark.parametrize("file", ["cache.json", "mark"])
def test_a_newer_schema_is_refused_clearly(tmp_path: Path, file: str) -> None:
    fill(tmp_path, usable("a"))
    shutil.rmtree(tmp_path / "catalogue")
    path = mark_files(tmp_path)[0] if file == "mark" else tmp_path / file
    stored = json.loads(path.read_text())
    del stored["sha256"]
    newer = {**stored, "schema_version": SCHEMA_VERSION + 1, "field_of_the_future": 1}
    path.write_bytes(seal(json.dumps(newer)))
    with pytest.raises(SchemaTooNewError, match=f"knows up to {SCHEMA_VERSION}.*Upgrade"):
        FeatureCache(tmp_path)
    with pytest.raises(SchemaTooNewError):
        CacheWriter(tmp_path, header(), shard_videos=1).__enter__()


@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_mark_is_an_error_for_its_videos_alone(tmp_path: Path, indexed: bool) -> None:
    fill(tmp_path, usable("a"), usable("b"), shard_videos=1)
    if not indexed:
        shutil.rmtree(tmp_path / "catalogue")
    mark = mark_files(tmp_path)[0]
    content = bytearray(mark.read_bytes())
    content[100] ^= 1
    mark.write_bytes(content)
    cache = FeatureCache(tmp_path)
    with pytest.raises(CacheCorruptError, match="'a'.*" + re.escape(mark.name)):
        cache["a"]["resize/latent"]
    np.testing.assert_array_equal(cache["b"]["resize/latent"], arrays_of("b")["resize/latent"])
    mark.unlink()
    assert FeatureCache(tmp_path).ids() == ("b",)
    fill(tmp_path, usable("a"))
    assert FeatureCache(tmp_path).ids() == ("b", "a")


def test_a_damaged_header_is_an_error_and_the_same_extraction_writes_it_anew(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    path = tmp_path / "cache.json"
    path.write_bytes(path.read_bytes().replace(b"resize", b"resjze"))
    with pytest.raises(CacheCorruptError, match=r"cache.json is damaged.*'diffvqa extract' again"):
        FeatureCache(tmp_path)
    with pytest.raises(CacheCorruptError, match=r"cache.json is damaged"):
        CacheWriter(tmp_path, header(seed=5), shard_videos=1).__enter__()
    fill(tmp_path, usable("b"))
    assert FeatureCache(tmp_path).ids() == ("a", "b")


def test_a_shard_of_other_features_is_never_mixed_in(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "other", header(seed=5), shard_videos=1) as writer:
        writer.add(usable("foreign"))
    fill(tmp_path / "cache", usable("a"))
    for path in (tmp_path / "other/shards").iterdir():
        shutil.move(path, tmp_path / "cache/shards" / path.name)
    cache = FeatureCache(tmp_path / "cache")
    assert cache.ids() == ("a",)
    assert "another cache" in next(iter(cache.info().damaged.values()))


@given(
    sizes=st.lists(st.tuples(st.integers(1, MOST_FRAMES), st.integers(1, 2)), min_size=1, max_size=5),
)
@settings(max_examples=10)
def test_videos_may_have_fewer_frames_and_fewer_crops(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("ragged")
    entries = [usable(f"v{index}", frames=frames, crops=crops) for index, (frames, crops) in enumerate(sizes)]
    fill(directory, *entries)
    cache = FeatureCache(directory)
    for entry, (frames, crops) in zip(entries, sizes, strict=True):
        video = cache[entry.row.video_id]
        assert video.row.extents == {"frame": frames, "crop": crops}
        assert video["crop/frames"].shape == (frames, crops, 4, 4, 3)
        for name, array in (entry.arrays or {}).items():
            np.testing.assert_array_equal(video[name], array)


def test_info_counts_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, usable("a", frames=2), failed("x"), usable("b"), failed("y"), failed("z", reason="missing"))
    info = FeatureCache(tmp_path).info()
    assert (info.videos, info.frames, info.shards) == (2, 2 + MOST_FRAMES, 3)
    assert list(info.failures.items()) == [("empty", 2), ("missing", 1)]
    assert info.arrays == SPECS
    assert not info.damaged
    assert info.size == sum(path.stat().st_size for path in (tmp_path / "shards").rglob("*") if path.is_file())


def test_a_folder_without_a_cache_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheMissingError, match="no feature cache"):
        FeatureCache(tmp_path)


def test_arrays_of_the_wrong_shape_or_type_never_reach_a_shard(tmp_path: Path) -> None:
    good = usable("a")
    assert good.arrays is not None
    wide = {**good.arrays, "resize/latent": np.zeros((4, 3, 2, 5), np.float16)}
    with CacheWriter(tmp_path, header(), shard_videos=9) as writer:
        writer.add(type(good)(good.row, wide))
        with pytest.raises(ValueError, match=r"a: resize/latent is \(4, 3, 2, 5\), expected \(4, 3, 2, 2\)"):
            writer.publish()
    assert FeatureCache(tmp_path).ids() == ()
