"""Streaming and exporting take the same memory however many videos there are; the benchmark goes to 10,000."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cache_material import fill, usable

FEW, MANY = 40, 300
MOST_GROWTH = 1.1
TASKS = {
    "stream": "print(sum(1 for _ in FeatureStream(cache, seed=0, memory=2**16)))",
    "h5": "print(export_h5(everything, out / 'x.h5').videos)",
    "npz": "print(export_npz(everything, out / 'npz').videos)",
    "parquet": "print(export_parquet(everything, out / 'x.parquet').videos)",
}
PROGRAM = """
import resource, sys
from pathlib import Path
from diffvqa.cache._export import FeatureExport, Labels
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._export_npz import export_npz
from diffvqa.cache._export_parquet import export_parquet
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._streaming import FeatureStream
cache, out = FeatureCache(sys.argv[1]), Path(sys.argv[2])
everything = FeatureExport(cache, labels=Labels(dict.fromkeys(cache.ids(), 1.0)), provenance={})
TASK
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("flat")
    for videos in (FEW, MANY):
        fill(folder / str(videos), *(usable(f"v{number}") for number in range(videos)), shard_videos=32)
    return {videos: folder / str(videos) for videos in (FEW, MANY)}


@pytest.mark.parametrize("task", TASKS)
def test_ten_times_the_videos_take_no_more_memory(caches: dict[int, Path], tmp_path: Path, task: str) -> None:
    peaks = {}
    for videos, cache in caches.items():
        (tmp_path / str(videos)).mkdir()
        command = [sys.executable, "-c", PROGRAM.replace("TASK", TASKS[task]), str(cache), str(tmp_path / str(videos))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found, peak = map(int, done.stdout.split())
        assert found == videos
        peaks[videos] = peak
    assert peaks[MANY] < MOST_GROWTH * peaks[FEW]
