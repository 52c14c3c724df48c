"""Caches that earlier versions wrote, kept under ``stored/`` and readable for ever.

``python tests/cache/test_stored_caches.py`` writes the one of this version; it is run once per schema version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cache_material import SPECS, arrays_of, fill, header, mark_files, usable
from cache_material import failed as failure

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SCHEMA_VERSION
from diffvqa.cache._verify import verify

STORED = Path(__file__).parent / "stored"
EXTENTS = {"full": (4, 2), "fewer frames": (1, 2), "fewer/crops ä.mp4": (3, 1)}


def write_stored_cache(directory: Path) -> None:
    """Write the small cache of this version: ragged videos in two shards, and one that failed."""
    videos = [usable(video_id, frames=frames, crops=crops) for video_id, (frames, crops) in EXTENTS.items()]
    fill(directory, *videos[:2], failure("unusable", reason="no_video_stream"), videos[2])
    for lock in directory.glob(".*"):
        lock.unlink()
    (directory / "writers").rmdir()


def versions() -> list[str]:
    return sorted(path.name for path in STORED.glob("v*"))


def test_the_cache_of_this_version_is_among_them() -> None:
    assert f"v{SCHEMA_VERSION}" in versions()


@pytest.mark.parametrize("version", versions())
def test_a_cache_of_an_earlier_version_is_whole_and_reads_as_it_was_written(version: str) -> None:
    directory = STORED / version
    cache = FeatureCache(directory)
    assert cache.header.schema_version == int(version.removeprefix("v"))
    assert set(cache.ids()) == set(EXTENTS)
    assert [(row.video_id, row.reason) for row in cache.failures()] == [("unusable", "no_video_stream")]
    for video_id, (frames, crops) in EXTENTS.items():
        expected = arrays_of(video_id, frames, crops)
        assert dict(cache[video_id]).keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(cache[video_id][name], array)
            assert cache[video_id][name].dtype == array.dtype
    assert verify(directory).damages == ()


@pytest.mark.parametrize("version", versions())
def test_the_specification_is_enough_to_read_one(version: str) -> None:
    """As ``docs/cache-format.md`` tells another program to: JSON and plain Zarr, nothing of this one."""
    found = {}
    for mark in mark_files(STORED / version):
        rows = json.loads(mark.read_text(encoding="utf-8"))["rows"]
        group: Any = zarr.open_group(mark.with_suffix(".zarr"), mode="r")
        for slot, row in enumerate(row for row in rows if row["status"] == "ok"):
            for name in row["digests"]:
                ends = [slice(row["extents"].get(dimension)) for dimension in group[name].metadata.dimension_names[1:]]
                found[row["video_id"], name] = group[name][(slot, *ends)]
    assert len(found) == len(EXTENTS) * len(SPECS)
    for (video_id, name), values in found.items():
        np.testing.assert_array_equal(values, arrays_of(video_id, *EXTENTS[video_id])[name])
    assert header().arrays == SPECS


if __name__ == "__main__":
    write_stored_cache(STORED / f"v{SCHEMA_VERSION}")
