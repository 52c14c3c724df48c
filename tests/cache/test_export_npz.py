from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cache_material import data_files, fill, usable
from export_material import IDS, LABELS, odd_cache, odd_export

from diffvqa.cache._errors import CacheCorruptError, OutputError
from diffvqa.cache._export import Labels
from diffvqa.cache._export_npz import INDEX_FILE, export_npz
from diffvqa.cache._reader import FeatureCache


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return odd_cache(tmp_path / "cache")


def index_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / INDEX_FILE).open(newline="") as file:
        return {line["video_id"]: line for line in csv.DictReader(file)}


def test_numpy_reads_every_video_with_its_label(cache: FeatureCache, tmp_path: Path) -> None:
    out = tmp_path / "deep/npz"
    exported = export_npz(odd_export(cache), out)
    index = index_of(out)
    assert set(index) == set(IDS)
    assert exported.videos == 3
    assert exported.size == sum(path.stat().st_size for path in out.iterdir())
    assert {line["file"] for line in index.values()} | {INDEX_FILE} == {path.name for path in out.iterdir()}
    for video_id, line in index.items():
        with np.load(out / line["file"], allow_pickle=False) as stored:
            video = cache[video_id]
            for name, array in video.items():
                assert stored[name].dtype == array.dtype
                np.testing.assert_array_equal(stored[name], array)
            assert stored["video_id"].item() == video_id
            assert stored["group"].item() == line["group"] == LABELS.group(video_id)
            assert stored["label"].item() == "MOS (of a test)"
            np.testing.assert_equal(stored["score"].item(), LABELS.score(video_id))
            assert tuple(stored["timestamp"]) == video.row.timestamps
            assert json.loads(stored["row"].item()) == json.loads(video.row.model_dump_json())
            assert json.loads(stored["provenance"].item()) == {"data_set": "d"}
            assert json.loads(stored["cache"].item())["fingerprint_digest"] == cache.header.fingerprint_digest
        assert line["score"] == {"a/ä.mp4": "3.25", "b": "", "one crop": "2.0"}[video_id]
        assert int(line["frames"]) == len(video.row.timestamps)


def test_an_earlier_export_is_replaced_and_anything_else_is_not(cache: FeatureCache, tmp_path: Path) -> None:
    out = tmp_path / "npz"
    export_npz(odd_export(cache), out)
    (out / "old.npz").touch()
    export_npz(odd_export(cache, "resize/latent"), out)
    assert not (out / "old.npz").exists()
    with np.load(out / index_of(out)["b"]["file"]) as stored:
        assert "resize/latent" in stored
        assert "crop/frames" not in stored
    with pytest.raises(OutputError, match="is not empty and no earlier export"):
        export_npz(odd_export(cache), tmp_path)
    assert (tmp_path / "cache/cache.json").is_file()


def test_an_export_that_fails_half_way_leaves_no_folder(cache: FeatureCache, tmp_path: Path) -> None:
    data_files(tmp_path / "cache", "crop/frames")[-1].unlink()
    with pytest.raises(CacheCorruptError, match="'crop/frames' of video '"):
        export_npz(odd_export(cache), tmp_path / "npz")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_ids_too_long_for_a_file_name_get_a_short_one(tmp_path: Path) -> None:
    long = ["ä" * 90 + ending for ending in ("1", "2")]
    fill(tmp_path / "cache", *map(usable, long))
    cache = FeatureCache(tmp_path / "cache")
    export_npz(odd_export(cache, labels=Labels(dict.fromkeys(long, 1.0))), tmp_path / "npz")
    index = index_of(tmp_path / "npz")
    for video_id in long:
        with np.load(tmp_path / "npz" / index[video_id]["file"]) as stored:
            assert stored["video_id"].item() == video_id
