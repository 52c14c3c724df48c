from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cache_material import SPECS, failed, fill, header, usable
from export_material import odd_cache, odd_export
from hypothesis import given, settings
from hypothesis import strategies as st

from diffvqa.cache._errors import (
    CacheCorruptError,
    CacheError,
    FingerprintMismatchError,
    ImportFileError,
    SchemaTooNewError,
)
from diffvqa.cache._export import FeatureExport, Labels
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._import_h5 import Imported, import_h5
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._shards import digest_of
from diffvqa.cache._writer import CacheWriter

KINDS = st.sampled_from(["whole", "short", "one crop", "failed"])
ARRAYS = st.sampled_from([None, ["resize/latent"], ["crop/frames"]])


def assert_same(one: FeatureCache, other: FeatureCache, arrays: list[str] | None = None) -> None:
    """Both hold the same rows, and arrays with the digests that these say."""
    names = arrays or [spec.name for spec in one.header.arrays]
    assert other.header.fingerprint_digest == one.header.fingerprint_digest
    assert other.header == one.header.model_copy(update={"arrays": other.header.arrays})
    assert [spec.name for spec in other.header.arrays] == names
    assert set(one.ids()) == set(other.ids())
    for video_id in one.ids():
        row = one[video_id].row
        digests = {name: row.digests[name] for name in names}
        extents = row.extents if "crop/frames" in names else {"frame": row.extents["frame"]}
        assert other[video_id].row == row.model_copy(update={"digests": digests, "extents": extents})
        for name in names:
            np.testing.assert_array_equal(other[video_id][name], one[video_id][name])
            assert digest_of(other[video_id][name]) == row.digests[name]
    by_id = {row.video_id: row for row in other.failures()}
    assert by_id == {row.video_id: row for row in one.failures()}


def everything(cache: FeatureCache, arrays: list[str] | None = None) -> FeatureExport:
    ids = (*cache.ids(), *(row.video_id for row in cache.failures()))
    return FeatureExport(cache, labels=Labels(dict.fromkeys(ids, 1.0)), provenance={}, arrays=arrays)


@settings(max_examples=12)
@given(kinds=st.lists(KINDS, min_size=1, max_size=7), arrays=ARRAYS, shard_videos=st.integers(1, 4))
def test_a_cache_comes_back_from_the_file_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], arrays: list[str] | None, shard_videos: int
) -> None:
    make: dict[str, Any] = {
        "whole": usable,
        "short": lambda video_id: usable(video_id, frames=1),
        "one crop": lambda video_id: usable(video_id, crops=1),
        "failed": failed,
    }
    folder = tmp_path_factory.mktemp("round")
    fill(folder / "one", *(make[kind](f"v{number}") for number, kind in enumerate(kinds)))
    one = FeatureCache(folder / "one")
    export_h5(everything(one, arrays), folder / "x.h5")
    imported = import_h5(folder / "x.h5", folder / "other", shard_videos=shard_videos)
    failures = kinds.count("failed")
    assert imported == Imported(videos=len(kinds) - failures, failures=failures, present=0)
    assert_same(one, FeatureCache(folder / "other"), arrays)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    cache = odd_cache(tmp_path / "one")
    export_h5(everything(cache), tmp_path / "x.h5")
    return tmp_path / "x.h5"


def test_an_import_adds_what_is_missing_and_leaves_the_rest(exported: Path, tmp_path: Path) -> None:
    one = FeatureCache(tmp_path / "one")
    export_h5(odd_export(one), tmp_path / "part.h5")
    part = import_h5(tmp_path / "part.h5", tmp_path / "other")
    assert part == Imported(videos=3, failures=1, present=0)
    assert import_h5(exported, tmp_path / "other") == Imported(videos=1, failures=0, present=4)
    assert_same(one, FeatureCache(tmp_path / "other"))
    assert import_h5(exported, tmp_path / "other") == Imported(videos=0, failures=0, present=5)


def test_a_video_that_failed_there_and_is_usable_in_the_file_is_added(exported: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", failed("b"))
    assert import_h5(exported, tmp_path / "other") == Imported(videos=4, failures=1, present=0)
    assert_same(FeatureCache(tmp_path / "one"), FeatureCache(tmp_path / "other"))


def test_other_features_or_arrays_are_refused(exported: Path, tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "other", header(seed=7), shard_videos=1):
        pass
    with pytest.raises(FingerprintMismatchError, match="seed"):
        import_h5(exported, tmp_path / "other")
    export_h5(odd_export(FeatureCache(tmp_path / "one"), "resize/latent"), tmp_path / "part.h5")
    with pytest.raises(CacheError, match="holds other arrays"):
        import_h5(tmp_path / "part.h5", tmp_path / "one")
    import_h5(exported, tmp_path / "other", overwrite=True)
    assert_same(FeatureCache(tmp_path / "one"), FeatureCache(tmp_path / "other"))


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_a_value_that_was_changed_in_the_file_is_found(exported: Path, tmp_path: Path, name: str) -> None:
    with h5py.File(exported, "r+") as file:
        place = [value.decode() for value in file["video_id"]].index("one crop")
        data = file["features"][name]
        first = data[file["frame_offset"][place]]
        first.flat[0] += 1
        data[file["frame_offset"][place]] = first
    with pytest.raises(CacheCorruptError, match=f"x.h5: '{name}' of video 'one crop' is damaged"):
        import_h5(exported, tmp_path / "other")


def test_a_flipped_bit_in_the_file_is_found(exported: Path, tmp_path: Path) -> None:
    array = FeatureCache(tmp_path / "one")["one crop"]["resize/latent"]
    content = bytearray(exported.read_bytes())
    content[content.index(array[0].tobytes())] ^= 1
    exported.write_bytes(content)
    with pytest.raises(CacheCorruptError, match="'resize/latent' of video 'one crop' is damaged"):
        import_h5(exported, tmp_path / "other")


def test_a_damaged_row_is_found(exported: Path, tmp_path: Path) -> None:
    with h5py.File(exported, "r+") as file:
        file["row"][1] = file["row"][1][:-5]
    with pytest.raises(CacheCorruptError, match="row 1 cannot be read"):
        import_h5(exported, tmp_path / "other")


def test_a_file_that_is_no_export_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="not there"):
        import_h5(tmp_path / "absent.h5", tmp_path / "other")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ImportFileError, match="cannot be read as HDF5"):
        import_h5(tmp_path / "text.h5", tmp_path / "other")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ImportFileError, match="not written by"):
        import_h5(tmp_path / "empty.h5", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_newer_format_or_schema_is_refused_clearly(exported: Path, tmp_path: Path) -> None:
    with h5py.File(exported, "r+") as file:
        stored = json.loads(file.attrs["cache"])
        file.attrs["cache"] = json.dumps({**stored, "schema_version": 99, "field_of_the_future": 1})
    with pytest.raises(SchemaTooNewError, match="schema version 99"):
        import_h5(exported, tmp_path / "other")
    with h5py.File(exported, "r+") as file:
        file.attrs["format"] = 99
    with pytest.raises(SchemaTooNewError, match="format 99"):
        import_h5(exported, tmp_path / "other")
