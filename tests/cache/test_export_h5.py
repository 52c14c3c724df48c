from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_material import SPECS, data_files
from export_material import IDS, odd_cache, odd_export

from diffvqa.cache._errors import CacheCorruptError, OutputError
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._reader import FeatureCache


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return odd_cache(tmp_path / "cache")


def test_the_file_gives_back_every_array_id_label_and_timestamp(cache: FeatureCache, tmp_path: Path) -> None:
    out = tmp_path / "deep/er/features.h5"
    exported = export_h5(odd_export(cache), out)
    assert (exported.videos, exported.size) == (3, out.stat().st_size)
    with h5py.File(out) as file:
        ids = [value.decode() for value in file["video_id"]]
        assert sorted(ids) == sorted(IDS)
        place = {video_id: number for number, video_id in enumerate(ids)}
        scores = dict(zip(ids, file["score"], strict=True))
        assert scores["a/ä.mp4"] == 3.25
        assert np.isnan(scores["b"])
        assert file["score"].attrs["label"] == "MOS (of a test)"
        assert file["group"].asstr()[place["one crop"]] == "g"
        assert file["group"].asstr()[place["b"]] == "b"
        offsets = file["frame_offset"][:]
        assert np.diff(offsets)[[place[video_id] for video_id in IDS]].tolist() == [2, 4, 3]
        assert file["crops"][:][[place[video_id] for video_id in IDS]].tolist() == [2, 2, 1]
        for video_id in IDS:
            number = place[video_id]
            frames = slice(offsets[number], offsets[number + 1])
            row = cache[video_id].row
            assert tuple(file["timestamp"][frames]) == row.timestamps
            assert json.loads(file["row"][number]) == json.loads(row.model_dump_json())
            for spec in SPECS:
                stored = file["features"][spec.name]
                assert stored.dtype == spec.dtype
                assert list(stored.attrs["dimensions"]) == list(spec.dimensions)
                array = cache[video_id][spec.name]
                np.testing.assert_array_equal(stored[(frames, *map(slice, array.shape[1:]))], array)
        assert [json.loads(row)["video_id"] for row in file["failure"]] == ["bad"]
        assert json.loads(file.attrs["provenance"]) == {"data_set": "d"}
        assert json.loads(file.attrs["cache"])["fingerprint_digest"] == cache.header.fingerprint_digest


def test_a_part_of_the_arrays_can_be_exported(cache: FeatureCache, tmp_path: Path) -> None:
    export_h5(odd_export(cache, "crop/frames"), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file["features"]) == ["crop"]
        assert list(file["features/crop"]) == ["frames"]
        assert [spec["name"] for spec in json.loads(file.attrs["cache"])["arrays"]] == ["crop/frames"]
        assert {*json.loads(file["row"][0])["digests"]} == {"crop/frames"}


def test_an_export_that_fails_half_way_leaves_the_earlier_file_and_no_other(
    cache: FeatureCache, tmp_path: Path
) -> None:
    out = tmp_path / "x.h5"
    out.write_text("an earlier file")
    for file in data_files(tmp_path / "cache", "crop/frames")[-1:]:
        file.unlink()
    with pytest.raises(CacheCorruptError, match="'crop/frames' of video '"):
        export_h5(odd_export(cache), out)
    assert out.read_text() == "an earlier file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "x.h5"]


def test_a_place_that_cannot_be_written_is_a_clear_error(cache: FeatureCache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export_h5(odd_export(cache), tmp_path / "file/x.h5")
