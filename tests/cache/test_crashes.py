"""Whatever ends an extraction, nothing is lost, mixed up or half there, and the next run goes on. About 40 s."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_material import digests, fill, mark_files, usable
from ready_processes import peak_memory, write_and_verify
from stand_in import REFUSED, SHARD_VIDEOS, VIDEOS, errors_of, extract, extract_with_workers, kill_group, redone, start

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._verify import verify

KILLS = 26


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process needs no disk to be waited for."""
    memory = Path("/dev/shm")  # noqa: S108  # a fresh folder in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The digests of an extraction that nothing interrupted."""
    directory = tmp_path_factory.mktemp("whole")
    extract(directory, directory.parent / "log")
    return digests(directory)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_digests(
    fast: Path, whole: dict[str, dict[str, str]], workers: int
) -> None:
    rng = random.Random(workers)
    run = (extract, {}) if workers == 1 else (extract_with_workers, {"workers": workers})
    slowly = {**run[1], "seconds_per_video": 0.01}
    for warm in (False, True):
        begun = time.monotonic()
        start(run[0], fast / f"timed-{warm}", fast / "timed.log", **slowly).join()
        seconds = time.monotonic() - begun
    kills, phases = 0, Counter[bool]()
    for attempt in range(20 * KILLS):
        directory, log = fast / f"cache-{attempt}", fast / f"log-{attempt}"
        process = start(run[0], directory, log, **slowly)
        time.sleep(rng.uniform(0, seconds))
        if not kill_group(process):
            continue
        kills += 1
        readable = set(FeatureCache(directory).ids()) if (directory / "cache.json").exists() else set()
        phases[bool(readable)] += 1
        run[0](directory, log, **run[1])
        assert digests(directory) == whole
        assert redone(log) <= SHARD_VIDEOS * workers
        assert verify(directory).damages == ()
        assert len(list((directory / "shards").glob("*.zarr"))) == len(mark_files(directory))
        assert readable <= set(whole)
        shutil.rmtree(directory)
        if kills == KILLS:
            break
    assert kills == KILLS
    assert phases[True] > 3, "hardly any was killed half way"


def test_workers_that_outlive_their_run_publish_nothing_more(fast: Path, whole: dict[str, dict[str, str]]) -> None:
    log = fast / "log"
    process = start(extract_with_workers, fast / "cache", log, workers=2, seconds_per_video=0.05)
    assert process.pid is not None
    while not log.exists() or len(log.read_text().splitlines()) < SHARD_VIDEOS:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    extract(fast / "cache", log)
    marks = mark_files(fast / "cache")
    assert digests(fast / "cache") == whole
    time.sleep(0.05 * len(VIDEOS))
    assert mark_files(fast / "cache") == marks
    assert len(list((fast / "cache/shards").iterdir())) == 2 * len(marks)
    assert verify(fast / "cache").damages == ()


def test_of_several_extractions_at_once_one_does_the_work_and_the_others_say_why_not(
    fast: Path, whole: dict[str, dict[str, str]]
) -> None:
    rng = random.Random(5)
    for round_number in range(6):
        directory, log = fast / f"cache-{round_number}", fast / f"log-{round_number}"
        contenders = []
        for _ in range(4):
            contenders.append(start(extract, directory, log, seconds_per_video=0.005))
            time.sleep(rng.uniform(0, 0.02))
        for process in contenders:
            process.join()
        endings = Counter(process.exitcode for process in contenders)
        assert set(endings) <= {0, REFUSED}
        assert endings[0] >= 1
        lines = errors_of(log).read_text().splitlines() if endings[REFUSED] else []
        assert len(lines) == endings[REFUSED]
        assert all("is being written by another process" in line for line in lines)
        assert digests(directory) == whole
        assert redone(log) == 0
        rows = [
            row.video_id for mark in mark_files(directory) for row in FeatureCache(directory).shard(mark.stem).usable
        ]
        assert sorted(rows) == sorted(VIDEOS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is full after 1 MB; where none can be mounted, a limit on files does as well."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_after_space_is_made(
    small_disk: Path, whole: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    ballast, directory = small_disk / "ballast", small_disk / "cache"
    fill(directory, usable(VIDEOS[0]), usable(VIDEOS[1]), usable(VIDEOS[2]))
    is_mounted = small_disk.is_mount()
    process = start(_extract_on_a_full_disk, directory, tmp_path / "log", ballast=ballast if is_mounted else None)
    process.join()
    assert process.exitcode == REFUSED
    (line,) = errors_of(tmp_path / "log").read_text().splitlines()
    assert "cannot be written to: " in line
    assert "Free some disk space and run it again." in line
    assert "No space left on device" in line or not is_mounted
    done = FeatureCache(directory).ids()
    assert 0 < len(done) < len(VIDEOS)
    assert verify(directory).damages == ()
    assert list((directory / "shards").glob(".*")) == []
    ballast.unlink(missing_ok=True)
    extract(directory, tmp_path / "log")
    assert digests(directory) == whole
    assert verify(directory).damages == ()


def _extract_on_a_full_disk(directory: Path, log: Path, ballast: Path | None) -> None:
    if ballast is None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
    else:
        space = shutil.disk_usage(ballast.parent).free - 60_000
        ballast.write_bytes(bytes(space))
    extract(directory, log)


def test_memory_does_not_grow_with_the_number_of_videos(fast: Path) -> None:
    """The benchmark ``tests.benchmarks.cache_memory`` shows the same from 100 to 10,000 videos."""
    peaks = []
    for videos in (40, 800):
        written, peak = peak_memory(write_and_verify, fast / str(videos), videos)
        assert written == videos
        peaks.append(peak)
    assert peaks[1] < 1.1 * peaks[0]
