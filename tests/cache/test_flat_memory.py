"""Streaming and exporting take the same memory however many videos there are; the benchmark goes to 10,000."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_material import fill, usable
from ready_processes import FORMATS, peak_memory, read_or_export

FEW, MANY = 40, 300
MOST_GROWTH = 1.1


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("flat")
    for videos in (FEW, MANY):
        fill(folder / str(videos), *(usable(f"v{number}") for number in range(videos)), shard_videos=32)
    return {videos: folder / str(videos) for videos in (FEW, MANY)}


@pytest.mark.parametrize("task", ["stream", *FORMATS])
def test_ten_times_the_videos_take_no_more_memory(caches: dict[int, Path], tmp_path: Path, task: str) -> None:
    peaks = {}
    for videos, cache in caches.items():
        (tmp_path / str(videos)).mkdir()
        found, peak = peak_memory(read_or_export, task, cache, tmp_path / str(videos))
        assert found == videos
        peaks[videos] = peak
    assert peaks[MANY] < MOST_GROWTH * peaks[FEW]
