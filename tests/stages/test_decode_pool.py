from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hanging_decoder
import misbehaving_decoders
import psutil
import pytest
from conftest import MakeClip

from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decode_process import DecodeProcess
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, in_one_line
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._failures import FailureReason

RECIPE = ExtractRecipe(frames=3, view_size=16, crops=2)


@pytest.fixture(autouse=True)
def importable_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def misbehaving(*, timeout: float, workers: int = 2, memory: int | None = None) -> DecodePool:
    return DecodePool(RECIPE, workers=workers, timeout=timeout, memory=memory, decode=misbehaving_decoders.decode)


def test_every_way_to_fail_becomes_a_reason_and_the_order_stays(processes_left: Callable[[], set[int]]) -> None:
    names = ["fine-1", "segfault", "fine-2", "exit", "memory", "bug", "unreadable", "hang", "print", "fine-3", "fine-4"]
    with misbehaving(timeout=5.0) as pool:
        results = list(pool.run(VideoSource(name, Path(name)) for name in names))
    assert [result.source.video_id for result in results] == names
    reasons = {result.source.video_id: result for result in results if isinstance(result, FailedVideo)}
    assert {name: failure.reason for name, failure in reasons.items()} == {
        "segfault": FailureReason.CRASHED,
        "exit": FailureReason.CRASHED,
        "memory": FailureReason.OUT_OF_MEMORY,
        "bug": FailureReason.CRASHED,
        "unreadable": FailureReason.UNREADABLE,
        "hang": FailureReason.TIMEOUT,
    }
    assert "SIGSEGV" in reasons["segfault"].detail
    assert "exit status 3" in reasons["exit"].detail
    assert reasons["unreadable"].detail == "Check failed; [h264] words of the decoder"
    assert "5 s" in reasons["hang"].detail
    assert "ZeroDivisionError" in reasons["bug"].detail
    assert not processes_left()


def test_a_worker_imports_what_decoding_takes_and_nothing_else(make_clip: MakeClip) -> None:
    """Workers are killed and replaced: the recipe's own class would double what they need to begin."""
    clip = make_clip("decoded.mp4", "-frames:v", "8")
    with DecodePool(RECIPE, workers=1, timeout=60.0, decode=misbehaving_decoders.decode_and_tell) as pool:
        (failed,) = pool.run([VideoSource("clip", clip)])
    assert isinstance(failed, FailedVideo)
    packages = set(failed.detail.split())
    assert {"av", "numpy"} <= packages
    assert not {"pydantic", "torch", "zarr", "scipy"} & packages


def test_a_crash_is_tried_again_a_set_number_of_times() -> None:
    with DecodePool(RECIPE, workers=1, timeout=60.0, attempts=3, decode=misbehaving_decoders.decode) as pool:
        crashed, unreadable = pool.run(VideoSource(name, Path(name)) for name in ("segfault", "unreadable"))
    assert isinstance(crashed, FailedVideo)
    assert crashed.reason == FailureReason.CRASHED
    assert crashed.detail.endswith("(3 times)")
    assert isinstance(unreadable, FailedVideo)
    assert "times" not in unreadable.detail


def test_a_worker_that_wants_more_memory_than_it_may_have_is_out_of_memory() -> None:
    names = ["hog", "native_hog", "killed", "fine"]
    with misbehaving(timeout=30.0, workers=1, memory=1024) as pool:
        hog, native_hog, killed, fine = pool.run(VideoSource(name, Path(name)) for name in names)
    for failure in (hog, native_hog, killed):
        assert isinstance(failure, FailedVideo)
        assert failure.reason == FailureReason.OUT_OF_MEMORY
    assert isinstance(native_hog, FailedVideo)
    assert "bad_alloc" in native_hog.detail
    assert isinstance(fine, DecodedVideo)


def test_decoding_runs_ahead_but_not_without_bound() -> None:
    asked = []

    def sources() -> Iterator[VideoSource]:
        for index in range(20):
            asked.append(index)
            yield VideoSource(f"fine-{index}", Path("x"))

    with misbehaving(timeout=30.0) as pool:
        results = pool.run(sources())
        next(results)
        assert 1 < len(asked) <= 4
        assert len(list(results)) == 19


def test_decoding_goes_on_while_the_videos_before_are_computed_and_written(tmp_path: Path) -> None:
    sources = [VideoSource(f"mark-{i}", tmp_path / str(i)) for i in range(20)]
    with misbehaving(timeout=30.0) as pool:
        results = pool.run(sources)
        next(results)  # the model is busy with this one from here on
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(list(results)) == 19
    assert len(list(tmp_path.iterdir())) == 20


def test_leaving_early_kills_a_worker_that_hangs(processes_left: Callable[[], set[int]]) -> None:
    begun = time.monotonic()
    with misbehaving(timeout=600.0) as pool:
        results = pool.run(VideoSource(name, Path(name)) for name in ("fine", "hang-1", "hang-2", "hang-3"))
        next(results)
    assert time.monotonic() - begun < 60
    assert not processes_left()


class _LateProcess(DecodeProcess):
    """Its worker would be started only when the video's time is up."""

    def _ask(self, source: VideoSource, overdue: threading.Event) -> DecodedVideo | FailedVideo:
        overdue.wait()
        return super()._ask(source, overdue)


def test_what_is_overdue_before_its_worker_has_begun_is_not_begun(processes_left: Callable[[], set[int]]) -> None:
    process = _LateProcess(RECIPE, misbehaving_decoders.decode, timeout=0.01, memory=None)
    result = process.decode(VideoSource("fine", Path("fine")))
    assert isinstance(result, FailedVideo)
    assert result.reason == FailureReason.TIMEOUT
    assert not processes_left()


def test_a_thousand_videos_that_hang_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes_left: Callable[[], set[int]]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    reached = tmp_path / "reached"
    reached.touch()
    process = psutil.Process()
    files, threads = process.num_fds(), threading.active_count()
    for videos, timeout in ((4, 5.0), (996, 0.05)):  # long enough for all to reach the decoder; and for many to be fast
        with DecodePool(RECIPE, workers=10, timeout=timeout, decode=hanging_decoder.decode) as pool:
            results = list(pool.run(VideoSource(f"hang-{i}", reached) for i in range(videos)))
        assert len(results) == videos
        assert {isinstance(result, FailedVideo) and result.reason for result in results} == {FailureReason.TIMEOUT}
        assert reached.stat().st_size >= 4
    assert not processes_left()
    assert process.num_fds() <= files
    assert threading.active_count() == threads
    assert not list((tmp_path / "temporary").iterdir())


def test_workers_end_when_their_parent_is_killed() -> None:
    program = """
import sys, misbehaving_decoders
from pathlib import Path
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decode_process import DecodeProcess
from diffvqa.stages._decoding import VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe
if __name__ == "__main__":
    pool = DecodePool(ExtractRecipe(view_size=16), workers=1, timeout=600, decode=misbehaving_decoders.decode)
    with pool:
        for result in pool.run(VideoSource(name, Path(name)) for name in ("fine-1", "hang", "fine-2")):
            print(int(result.timestamps[0]), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 30
    while _is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_real_clips_come_out_as_views(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("short.mp4", "-frames:v", "20", "-crf", "20")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    sources = [VideoSource("clip", clip), VideoSource("empty", empty), VideoSource("copy", clip, seed_key="clip")]
    with DecodePool(RECIPE, workers=2, timeout=60.0) as pool:
        first, second, third = pool.run(sources)
    assert isinstance(first, DecodedVideo)
    assert isinstance(second, FailedVideo)
    assert isinstance(third, DecodedVideo)
    assert first.resize.shape == (3, 16, 16, 3)
    assert first.crop.shape == (3, 2, 16, 16, 3)
    assert first.frame_indices.tolist() == [3, 10, 16]
    assert (first.width, first.height) == (176, 144)
    assert (first.crop == third.crop).all()
    assert second.reason == FailureReason.EMPTY


def test_a_decoders_words_fit_on_one_line() -> None:
    words = "[06:21:26] /github/workspace/src/video/video_reader.cc:151: Check failed\n\n [mov @ 0x55f6] moov atom\n"
    assert in_one_line(words) == "Check failed; [mov] moov atom"
    assert in_one_line("x" * 500, longest=20) == "x" * 19 + "…"


def _is_running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False
