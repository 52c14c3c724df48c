from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cache_material import SPECS, data_files
from export_material import IDS, odd_cache, odd_export
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from diffvqa.cache._errors import CacheCorruptError
from diffvqa.cache._export_parquet import export_parquet, pool, pooled_names
from diffvqa.cache._reader import FeatureCache

LATENT, CROPS = SPECS


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return odd_cache(tmp_path / "cache")


def test_a_line_per_video_holds_id_label_group_and_each_channels_mean_and_deviation(
    cache: FeatureCache, tmp_path: Path
) -> None:
    out = tmp_path / "deep/pooled.parquet"
    exported = export_parquet(odd_export(cache), out)
    assert (exported.videos, exported.size) == (3, out.stat().st_size)
    table = pq.read_table(out)
    assert table.column_names[:6] == [
        "video_id", "score", "group", "frames", "resize/latent/mean/0", "resize/latent/mean/1"
    ]  # fmt: skip
    assert len(table.column_names) == 4 + 2 * 3 + 2 * 3
    lines = {line["video_id"]: line for line in table.to_pylist()}
    assert set(lines) == set(IDS)
    assert {video_id: line["score"] for video_id, line in lines.items()} == {"a/ä.mp4": 3.25, "b": None, "one crop": 2}
    assert (lines["one crop"]["group"], lines["b"]["group"]) == ("g", "b")
    for video_id, line in lines.items():
        latent, crops = (cache[video_id][spec.name].astype(np.float64) for spec in SPECS)
        assert line["frames"] == len(latent)
        for channel in range(3):
            assert line[f"resize/latent/mean/{channel}"] == pytest.approx(latent[:, channel].mean(), abs=1e-6)
            assert line[f"resize/latent/std/{channel}"] == pytest.approx(latent[:, channel].std(), abs=1e-6)
            assert line[f"crop/frames/mean/{channel}"] == pytest.approx(crops[..., channel].mean(), rel=1e-6)
            assert line[f"crop/frames/std/{channel}"] == pytest.approx(crops[..., channel].std(), rel=1e-6)
    about = json.loads(table.schema.metadata[b"diffvqa"])
    assert about["label"] == "MOS (of a test)"
    assert about["provenance"] == {"data_set": "d"}
    assert about["cache"]["fingerprint_digest"] == cache.header.fingerprint_digest


@given(hnp.arrays(np.float16, st.tuples(st.integers(1, 4), st.just(3), st.just(2), st.just(2)),
                  elements=st.floats(-1000, 1000, width=16)))  # fmt: skip
def test_pooling_ignores_the_order_of_frames_and_places(array: NDArray[Any]) -> None:
    pooled = pool(LATENT, array)
    assert pooled.shape == (len(pooled_names(LATENT)),)
    np.testing.assert_allclose(pool(LATENT, array[::-1, :, ::-1]), pooled, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pool(LATENT, array[:, ::-1]), pooled.reshape(2, 3)[:, ::-1].ravel())


def test_an_array_without_channels_is_pooled_to_one_of_each() -> None:
    spec = LATENT.model_copy(update={"dimensions": ("frame", "a", "y", "x")})
    assert pooled_names(spec) == ["resize/latent/mean/0", "resize/latent/std/0"]
    array = np.arange(12, dtype=np.float16).reshape(1, 3, 2, 2)
    np.testing.assert_allclose(pool(spec, array), [5.5, np.arange(12).std()], rtol=1e-6)


def test_names_sort_as_their_channels_do() -> None:
    spec = LATENT.model_copy(update={"shape": (4, 12, 2, 2)})
    names = pooled_names(spec)
    assert names[:12] == sorted(names[:12])
    assert names[9:11] == ["resize/latent/mean/09", "resize/latent/mean/10"]


def test_an_export_that_fails_half_way_leaves_no_file(cache: FeatureCache, tmp_path: Path) -> None:
    data_files(tmp_path / "cache", "crop/frames")[-1].unlink()
    with pytest.raises(CacheCorruptError, match="'crop/frames' of video '"):
        export_parquet(odd_export(cache), tmp_path / "x.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
