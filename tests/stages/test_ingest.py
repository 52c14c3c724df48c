"""Whatever is handed in ends as exact frames or as the right reason, in bounded time, and never ends the run."""

from __future__ import annotations

import os
import random
import struct
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip
from numpy.typing import NDArray

from diffvqa.pipeline._ffmpeg import find_ffmpeg
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, decode_video
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._failures import FailureReason, VideoUnusableError
from diffvqa.stages._views import resize_view

SHARED = Path(__file__).parents[3] / "shared/data/decode"
RECIPE = ExtractRecipe(frames=8, view_size=32, crops=2)
SECONDS_PER_FRAME = 1001 / 30000
H264 = ("-c:v", "libx264", "-bf", "2")


@dataclass(frozen=True)
class Found:
    """What became of a video.

    Attributes:
        reason: Empty for one that was decoded.
        frames: How many were sampled.
        words: The note of one that was decoded, or the detail of one that failed.
    """

    reason: str
    frames: int
    words: str


def run_over(videos: Mapping[str, Path], recipe: ExtractRecipe = RECIPE) -> dict[str, DecodedVideo | FailedVideo]:
    with DecodePool(recipe, workers=2, timeout=60.0, memory=4096) as pool:
        results = pool.run(VideoSource(name, path) for name, path in videos.items())
        return {result.source.video_id: result for result in results}


def found(result: DecodedVideo | FailedVideo) -> Found:
    if isinstance(result, FailedVideo):
        return Found(result.reason, 0, result.detail)
    return Found("", len(result.resize), result.note)


def all_frames_of_ffmpeg(video: Path, height: int, width: int, tmp_path: Path) -> NDArray[np.uint8]:
    raw = tmp_path / "reference.rgb"
    to_rgb = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    find_ffmpeg().run(["-threads", "1", "-i", f"file:{video}", *to_rgb, str(raw)], purpose="reference frames")
    frames = np.fromfile(raw, dtype=np.uint8).reshape(-1, height, width, 3)
    raw.unlink()
    return frames


def box(data: bytearray, name: bytes, skip: int = 0) -> int:
    """Return where the payload of an MP4 box begins."""
    at = -1
    for _ in range(skip + 1):
        at = data.index(name, at + 1)
    return at + 4


def sounds(path: Path) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return path


def rewritten(path: Path, original: Path, change: Callable[[bytearray], bytearray | None]) -> Path:
    data = bytearray(original.read_bytes())
    path.write_bytes(change(data) or data)
    return path


def halved(data: bytearray) -> bytearray:
    return data[: len(data) // 2]


def with_header_damaged(data: bytearray) -> None:
    data[box(data, b"moov") : box(data, b"moov") + 60] = b"\xff" * 60


def with_index_damaged(data: bytearray) -> None:
    """Let the table of chunks point anywhere."""
    table = box(data, b"stco")
    (entries,) = struct.unpack_from(">I", data, table + 4)
    rng = random.Random(0)
    for entry in range(entries):
        struct.pack_into(">I", data, table + 8 + 4 * entry, rng.randrange(len(data)))


def with_ten_times_the_samples(data: bytearray) -> None:
    """Say that there are ten times as many frames as there are, in the table of times and of sizes."""
    times = box(data, b"stts")
    struct.pack_into(">I", data, times + 8, 10 * struct.unpack_from(">I", data, times + 8)[0])
    for length in (box(data, b"mvhd") + 16, box(data, b"mdhd") + 16):
        struct.pack_into(">I", data, length, 10 * struct.unpack_from(">I", data, length)[0])


def with_ten_times_the_frames(data: bytearray) -> None:
    """Say in both of an AVI's headers that there are ten times as many frames as there are."""
    for count in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        struct.pack_into("<I", data, count, 10 * struct.unpack_from("<I", data, count)[0])


@pytest.fixture(scope="module")
def sound_videos(make_clip: MakeClip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos that are whole, however odd."""
    synthetic = tmp_path_factory.mktemp("synthetic")

    def make(name: str, source: str, *arguments: str) -> Path:
        path = synthetic / name
        find_ffmpeg().run(["-f", "lavfi", "-i", source, *arguments, str(path)], purpose=name)
        return path

    base = make_clip("base.mp4", "-frames:v", "64", *H264, "-movflags", "+faststart")
    avi = make_clip("base.avi", "-frames:v", "64", "-c:v", "mpeg4", "-q:v", "3")
    strange = synthetic / 'it\'s "quoted" 🎬 ;$(touch pwned) %03d.mp4'
    strange.write_bytes(base.read_bytes())
    latin = synthetic / os.fsdecode(b"caf\xe9.mp4")
    latin.write_bytes(base.read_bytes())
    slow_half = "setpts='if(lt(N,10),N/30,10/30+(N-10)*0.2)/TB'"
    return {
        "base": base,
        "avi": avi,
        "variable rate": make_clip("vfr.mp4", "-frames:v", "20", *H264, "-vf", slow_half, "-fps_mode", "vfr"),
        "8k": make("8k.mp4", "testsrc2=size=7680x4320", "-frames:v", "1", "-c:v", "libx264", "-preset", "ultrafast"),
        "1x1": make("1x1.mkv", "testsrc=size=16x16:rate=25", "-frames:v", "10", "-vf", "crop=1:1", "-c:v", "ffv1"),
        "10,000 frames": make("long.mp4", "testsrc2=size=32x32:rate=25", "-frames:v", "10000", "-preset", "ultrafast"),
        "gif": make_clip("base.gif", "-frames:v", "12", "-pix_fmt", "rgb8"),
        "still": make_clip("still.png", "-frames:v", "1", "-pix_fmt", "rgb24"),
        "strange name": strange,
        "name in another encoding": latin,
        "over-reported mp4": rewritten(synthetic / "over.mp4", base, with_ten_times_the_samples),
        "over-reported avi": rewritten(synthetic / "over.avi", avi, with_ten_times_the_frames),
    }


@pytest.fixture
def broken_videos(sound_videos: dict[str, Path], make_clip: MakeClip, tmp_path: Path) -> dict[str, Path]:
    base = sound_videos["base"]
    mkv = make_clip("base.mkv", "-frames:v", "64", *H264)
    index_last = make_clip("index_last.mp4", "-frames:v", "64", *H264)
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/elsewhere.ts\n")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {base}\n")
    (tmp_path / "empty.mp4").touch()
    no_frames = tmp_path / "no_frames.avi"
    find_ffmpeg().run(["-i", str(base), "-frames:v", "0", "-c", "copy", str(no_frames)], purpose="no frames")
    covered = tmp_path / "covered.m4a"
    cover = [
        "-i",
        str(sound_videos["still"]),
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
    ]
    find_ffmpeg().run(["-i", str(sounds(tmp_path / "sound.wav")), *cover, str(covered)], purpose="a cover")
    return {
        "absent": tmp_path / "absent.mp4",
        "empty": tmp_path / "empty.mp4",
        "text": tmp_path / "text.mp4",
        "playlist": tmp_path / "playlist.mp4",
        "list": tmp_path / "list.mp4",
        "fifo": tmp_path / "fifo.mp4",
        "folder": tmp_path / "folder.mp4",
        "sound": tmp_path / "sound.wav",
        "sound with a cover": covered,
        "no frames": no_frames,
        "cut": rewritten(tmp_path / "cut.mp4", base, halved),
        "cut mkv": rewritten(tmp_path / "cut.mkv", mkv, halved),
        "cut avi": rewritten(tmp_path / "cut.avi", sound_videos["avi"], halved),
        "cut before its index": rewritten(tmp_path / "cut_index.mp4", index_last, halved),
        "header damaged": rewritten(tmp_path / "header.mp4", base, with_header_damaged),
        "index damaged": rewritten(tmp_path / "index.mp4", base, with_index_damaged),
    }


EXPECTED_FAILURES = {
    "absent": FailureReason.MISSING,
    "empty": FailureReason.EMPTY,
    "text": FailureReason.UNREADABLE,
    "playlist": FailureReason.UNREADABLE,
    "list": FailureReason.UNREADABLE,
    "fifo": FailureReason.UNREADABLE,
    "folder": FailureReason.UNREADABLE,
    "sound": FailureReason.NO_VIDEO_STREAM,
    "sound with a cover": FailureReason.NO_VIDEO_STREAM,
    "no frames": FailureReason.TOO_SHORT,
    "cut": FailureReason.TRUNCATED,
    "cut mkv": FailureReason.TRUNCATED,
    "cut avi": FailureReason.TRUNCATED,
    "cut before its index": FailureReason.UNREADABLE,
    "header damaged": FailureReason.UNREADABLE,
    "index damaged": FailureReason.UNREADABLE,
}


def test_all_of_them_in_one_run_end_as_exact_frames_or_as_the_right_reason(
    sound_videos: dict[str, Path], broken_videos: dict[str, Path], tmp_path: Path
) -> None:
    results = run_over({**sound_videos, **broken_videos})
    reasons = {name: result.reason for name, result in results.items() if isinstance(result, FailedVideo)}
    assert reasons == EXPECTED_FAILURES
    assert all(isinstance(result, DecodedVideo) or result.detail for result in results.values())
    for name, path in sound_videos.items():
        result = results[name]
        assert isinstance(result, DecodedVideo)
        assert not result.note
        assert not result.substitutions
        expected = all_frames_of_ffmpeg(path, result.height, result.width, tmp_path)[result.frame_indices]
        assert all(
            np.array_equal(view, resize_view(frame, 32)) for view, frame in zip(result.resize, expected, strict=True)
        )
        assert (np.diff(result.timestamps) > 0).all()
    assert not (Path.cwd() / "pwned").exists()


def test_what_was_sampled_is_what_is_recorded(sound_videos: dict[str, Path]) -> None:
    base = decode_video(VideoSource("base", sound_videos["base"]), RECIPE)
    assert base.frame_indices.tolist() == [4, 12, 20, 28, 36, 44, 52, 60]
    np.testing.assert_allclose(base.timestamps, base.frame_indices * SECONDS_PER_FRAME, atol=1e-6)
    assert base.frame_rate == pytest.approx(30000 / 1001)
    assert base.duration == pytest.approx(64 * SECONDS_PER_FRAME)
    assert base.decoder.startswith("decord ")
    by_rate = decode_video(
        VideoSource("base", sound_videos["base"]), RECIPE.model_copy(update={"frames_per_second": 2})
    )
    assert by_rate.frame_indices.tolist() == [7, 22, 37, 52]


def test_the_decoder_is_the_one_that_was_asked_for(sound_videos: dict[str, Path]) -> None:
    source = VideoSource("base", sound_videos["base"])
    through = {
        name: decode_video(source, ExtractRecipe.model_validate({**RECIPE.model_dump(), "decoder": name}))
        for name in ("auto", "decord", "pyav")
    }
    assert {name: video.decoder.split()[0] for name, video in through.items()} == {
        "auto": "decord",
        "decord": "decord",
        "pyav": "PyAV",
    }
    assert np.array_equal(through["decord"].resize, through["pyav"].resize)
    assert np.array_equal(through["decord"].crop, through["pyav"].crop)
    with pytest.raises(VideoUnusableError) as caught:
        decode_video(VideoSource("gif", sound_videos["gif"]), RECIPE.model_copy(update={"decoder": "decord"}))
    assert caught.value.reason == FailureReason.UNREADABLE
    assert "format gif" in caught.value.detail


def test_where_decord_is_not_installed_pyav_decodes(
    sound_videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "decord", None)
    assert decode_video(VideoSource("base", sound_videos["base"]), RECIPE).decoder.startswith("PyAV ")


def test_a_video_with_too_few_frames_is_too_short(sound_videos: dict[str, Path]) -> None:
    with pytest.raises(VideoUnusableError, match="64 frames, 65 are wanted") as caught:
        decode_video(VideoSource("base", sound_videos["base"]), RECIPE.model_copy(update={"min_frames": 65}))
    assert caught.value.reason == FailureReason.TOO_SHORT


@pytest.mark.parametrize("name", ["cut", "cut mkv", "cut avi"])
def test_a_truncated_video_gives_its_good_frames_when_that_is_allowed_and_says_so(
    name: str, broken_videos: dict[str, Path], sound_videos: dict[str, Path], tmp_path: Path
) -> None:
    failed = found(run_over({name: broken_videos[name]})[name])
    good = int(failed.words.split(" of ")[0])
    assert 0 < good < 8
    assert failed.words.startswith(f"{good} of 8 frames")
    allowed = RECIPE.model_copy(update={"good_frames": good / 8})
    video = decode_video(VideoSource(name, broken_videos[name]), allowed)
    assert video.note == f"truncated: {good} of 8 frames"
    original = sound_videos["avi" if name == "cut avi" else "base"]
    whole = decode_video(VideoSource(name, original), RECIPE)
    segment = 64 / 8 * SECONDS_PER_FRAME
    assert (np.abs(video.timestamps - whole.timestamps[:good]) < segment / 2).all()
    shown = np.round(video.timestamps / SECONDS_PER_FRAME).astype(int)  # frames that are lost count no more
    expected = all_frames_of_ffmpeg(original, whole.height, whole.width, tmp_path)[shown]
    assert all(np.array_equal(view, resize_view(frame, 32)) for view, frame in zip(video.resize, expected, strict=True))
    stricter = RECIPE.model_copy(update={"good_frames": (good + 1) / 8})
    with pytest.raises(VideoUnusableError) as caught:
        decode_video(VideoSource(name, broken_videos[name]), stricter)
    assert caught.value.reason == FailureReason.TRUNCATED


def test_8k_frames_that_need_more_memory_than_there_may_be_are_out_of_memory(sound_videos: dict[str, Path]) -> None:
    sources = [VideoSource("8k", sound_videos["8k"]), VideoSource("base", sound_videos["base"])]
    with DecodePool(RECIPE, workers=1, timeout=60.0, memory=256) as pool:
        too_large, small = pool.run(sources)
    assert found(too_large).reason == FailureReason.OUT_OF_MEMORY
    assert found(small).reason == ""


def test_a_worker_gives_back_the_memory_of_one_video_before_the_next(sound_videos: dict[str, Path]) -> None:
    recipe = RECIPE.model_copy(update={"decoder": "pyav"})
    with DecodePool(recipe, workers=1, timeout=60.0, memory=640) as pool:
        results = list(pool.run(VideoSource(f"8k-{i}", sound_videos["8k"]) for i in range(8)))
    assert [found(result).reason for result in results] == [""] * 8


def with_frames_overwritten(first: int, last: int) -> Callable[[bytearray], None]:
    """Return what makes noise of the coded data of some frames, in decoding order, but for the length of each."""

    def change(data: bytearray) -> None:
        sizes = box(data, b"stsz")
        lengths = struct.unpack_from(f">{struct.unpack_from('>I', data, sizes + 8)[0]}I", data, sizes + 12)
        (begin,) = struct.unpack_from(">I", data, box(data, b"stco") + 8)
        noise = random.Random(1)
        for frame in range(first, last):
            start = begin + sum(lengths[:frame])
            data[start + 6 : start + lengths[frame]] = noise.randbytes(lengths[frame] - 6)

    return change


@pytest.fixture(scope="module")
def short_groups(make_clip: MakeClip) -> Path:
    """A video of 64 frames in groups of 8, each of which can be decoded alone."""
    groups = ("-g", "8", "-keyint_min", "8", "-sc_threshold", "0", "-bf", "0", "-flags", "+cgop")
    return make_clip("groups.mp4", "-frames:v", "64", "-c:v", "libx264", *groups, "-movflags", "+faststart")


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_damaged_frame_gives_way_to_a_whole_one_of_its_own_stretch_and_that_is_recorded(
    decoder: str, short_groups: Path, tmp_path: Path
) -> None:
    damaged = rewritten(tmp_path / "damaged.mp4", short_groups, with_frames_overwritten(19, 24))
    recipe = ExtractRecipe.model_validate({**RECIPE.model_dump(), "decoder": decoder})
    whole = decode_video(VideoSource("v", short_groups), recipe)
    video = decode_video(VideoSource("v", damaged), recipe)
    assert whole.frame_indices.tolist() == [4, 12, 20, 28, 36, 44, 52, 60]
    assert video.frame_indices.tolist() == [4, 12, 18, 28, 36, 44, 52, 60]
    assert video.substitutions == ((20, 18),)
    assert video.note == "substituted: 1 of 8 frames"
    assert video.timestamps[2] == pytest.approx(18 * SECONDS_PER_FRAME, abs=1e-4)
    expected = all_frames_of_ffmpeg(short_groups, whole.height, whole.width, tmp_path)[video.frame_indices]
    assert all(np.array_equal(view, resize_view(frame, 32)) for view, frame in zip(video.resize, expected, strict=True))


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_the_last_good_frame_is_never_shown_again_for_frames_that_are_lost(
    decoder: str, short_groups: Path, tmp_path: Path
) -> None:
    damaged = rewritten(tmp_path / "damaged.mp4", short_groups, with_frames_overwritten(16, 32))
    recipe = ExtractRecipe.model_validate({**RECIPE.model_dump(), "decoder": decoder})
    with pytest.raises(VideoUnusableError) as caught:
        decode_video(VideoSource("v", damaged), recipe)
    assert caught.value.reason == FailureReason.TRUNCATED
    assert caught.value.detail.startswith("6 of 8 frames\n")
    video = decode_video(VideoSource("v", damaged), recipe.model_copy(update={"good_frames": 0.75}))
    assert video.frame_indices.tolist() == [4, 12, 36, 44, 52, 60]
    assert video.note == "truncated: 6 of 8 frames"
    expected = decode_video(VideoSource("v", short_groups), recipe)
    assert np.array_equal(video.resize, expected.resize[[0, 1, 4, 5, 6, 7]])


def test_decord_alone_gives_no_doubtful_frame(short_groups: Path, tmp_path: Path) -> None:
    damaged = rewritten(tmp_path / "damaged.mp4", short_groups, with_frames_overwritten(16, 32))
    with pytest.raises(VideoUnusableError) as caught:
        decode_video(VideoSource("v", damaged), RECIPE.model_copy(update={"decoder": "decord", "good_frames": 0.1}))
    assert caught.value.reason == FailureReason.UNREADABLE
    assert "h264" in caught.value.detail


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_the_shared_odd_videos_end_as_frames_or_as_the_right_reason() -> None:
    videos = {path.name: path for path in SHARED.iterdir() if path.is_file()}
    results = run_over(videos)
    failed = {name: found(result) for name, result in results.items() if isinstance(result, FailedVideo)}
    assert {name: failure.reason for name, failure in failed.items()} == {
        "audio_only.mp3": FailureReason.NO_VIDEO_STREAM,
        "dc_corrupted.mp4": FailureReason.TRUNCATED,
        "dover_error_test_0bytes.mp4": FailureReason.EMPTY,
    }
    assert failed["dc_corrupted.mp4"].words.startswith("5 of 8 frames; ")
    decoded = {name: result for name, result in results.items() if isinstance(result, DecodedVideo)}
    assert decoded["tc_av1_video.mkv"].decoder.startswith("PyAV ")
    assert {name: len(video.resize) for name, video in decoded.items() if len(video.resize) != 8} == {
        "dc_video_0.mov": 3,
        "dc_video_180.mov": 3,
        "dc_video_270.mov": 3,
        "dc_video_90.mov": 3,
        "nf_blue_sky_360p_60f_8b_converted_to_10b.mp4": 3,
        "slhck_dist.mkv": 3,
    }
