from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_material import SPECS, arrays_of, data_files, failed, fill, usable

from diffvqa.cache.errors import CacheCorruptError, OutputError
from diffvqa.cache.export import export_h5
from diffvqa.cache.reader import FeatureCache


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    fill(tmp_path / "cache", usable("a/ä.mp4", frames=2), failed("bad"), usable("b", frames=4), usable("c", frames=1))
    return FeatureCache(tmp_path / "cache")


def test_the_file_gives_back_every_array_id_label_and_timestamp(cache: FeatureCache, tmp_path: Path) -> None:
    out = tmp_path / "deep/er/features.h5"
    scores = {"a/ä.mp4": 3.25, "bad": 1.0, "b": None, "c": 2.0}
    videos = export_h5(
        cache, out, scores=scores, groups={"c": "g"}, label="MOS (of a test)", provenance={"data_set": "d"}
    )
    assert videos == 3
    with h5py.File(out) as file:
        ids = [value.decode() for value in file["video_id"]]
        assert ids == ["a/ä.mp4", "b", "c"]
        np.testing.assert_array_equal(file["score"], [3.25, np.nan, 2.0])
        assert file["score"].attrs["label"] == "MOS (of a test)"
        assert [value.decode() for value in file["group"]] == ["a/ä.mp4", "b", "g"]
        offsets = file["frame_offset"][:]
        assert offsets.tolist() == [0, 2, 6, 7]
        assert file["timestamp"][2:6].tolist() == [0.0, 0.5, 1.0, 1.5]
        for spec in SPECS:
            for index, video_id in enumerate(ids):
                stored = file["features"][spec.name][offsets[index] : offsets[index + 1]]
                np.testing.assert_array_equal(stored, arrays_of(video_id, len(stored))[spec.name])
                assert stored.dtype == spec.dtype
        assert json.loads(file.attrs["provenance"]) == {"data_set": "d"}
        assert json.loads(file.attrs["cache"])["fingerprint_digest"] == cache.header.fingerprint_digest


def test_only_the_videos_of_the_manifest_are_exported(cache: FeatureCache, tmp_path: Path) -> None:
    assert export_h5(cache, tmp_path / "one.h5", scores={"b": 1.0}, groups={}, label="MOS", provenance={}) == 1


def test_an_export_that_fails_half_way_leaves_no_file(cache: FeatureCache, tmp_path: Path) -> None:
    for file in data_files(tmp_path / "cache", "crop/frames"):
        file.unlink()
    out = tmp_path / "half.h5"
    with pytest.raises(CacheCorruptError):
        export_h5(cache, out, scores={"b": 1.0, "c": 1.0}, groups={}, label="MOS", provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_place_that_cannot_be_written_is_a_clear_error(cache: FeatureCache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export_h5(cache, tmp_path / "file/x.h5", scores={}, groups={}, label="MOS", provenance={})
