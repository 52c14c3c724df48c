from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffvqa.stages.frames import FailureReason, FrameTimes, VideoUnusableError, centre_frames, open_video


@given(
    durations=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60),
    begin=st.floats(-5.0, 5.0),
    count=st.integers(1, 20),
)
def test_a_sampled_frame_is_the_one_on_screen_at_its_segments_centre(
    durations: list[float], begin: float, count: int
) -> None:
    edges = begin + np.concatenate([[0.0], np.cumsum(durations)])
    times = FrameTimes(edges[:-1], float(edges[-1]))
    indices = centre_frames(times, count)
    assert 1 <= len(indices) <= min(count, len(durations))
    assert (np.diff(indices) > 0).all()
    centres = edges[0] + (np.arange(count) + 0.5) / count * (edges[-1] - edges[0])
    on_screen = {next(i for i in reversed(range(len(durations))) if times.starts[i] <= centre) for centre in centres}
    assert set(indices.tolist()) == on_screen


def test_a_constant_rate_gives_the_middle_of_each_segment() -> None:
    times = FrameTimes(np.arange(80) / 25.0, 80 / 25.0)
    assert centre_frames(times, 8).tolist() == [5, 15, 25, 35, 45, 55, 65, 75]


def test_frames_are_those_that_ffmpeg_decodes(make_clip: MakeClip, tmp_path: Path) -> None:
    from diffvqa.pipeline.ffmpeg import find_ffmpeg

    clip = make_clip("short.mp4", "-frames:v", "20", "-crf", "20")
    pattern = ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int", str(tmp_path / "%03d.png")]
    find_ffmpeg().run(["-i", str(clip), *pattern], purpose="reference frames")
    video = open_video(clip)
    assert len(video.times.starts) == 20
    assert video.times.end == pytest.approx(20 / (30000 / 1001), abs=1e-3)
    indices = np.array([0, 7, 19])
    for index, frame in zip(indices, video.decode(indices), strict=True):
        reference = np.asarray(Image.open(tmp_path / f"{index + 1:03d}.png")).astype(int)
        neighbour = np.asarray(Image.open(tmp_path / f"{(index + 3) % 20 + 1:03d}.png")).astype(int)
        # Colour conversion differs by a few grey levels; another frame differs by far more.
        assert np.abs(frame - reference).mean() < 2.5
        assert np.abs(frame - reference).mean() < np.abs(frame - neighbour).mean() / 1.5


def test_a_variable_frame_rate_is_sampled_by_time_and_not_by_index(make_clip: MakeClip) -> None:
    # Ten frames in the first third of a second, then ten that last 0.2 s each.
    slow_half = "setpts='if(lt(N,10),N/30,10/30+(N-10)*0.2)/TB'"
    clip = make_clip("variable.mp4", "-frames:v", "20", "-vf", slow_half, "-fps_mode", "vfr")
    times = open_video(clip).times
    assert times.starts[10] == pytest.approx(10 / 30, abs=0.01)
    assert times.starts[19] == pytest.approx(10 / 30 + 9 * 0.2, abs=0.01)
    indices = centre_frames(times, 4)
    assert (indices >= 10).sum() == 3


def test_a_rotated_video_comes_upright(make_clip: MakeClip, tmp_path: Path) -> None:
    from diffvqa.pipeline.ffmpeg import find_ffmpeg

    clip = make_clip("flat.mp4", "-frames:v", "3")
    rotated = tmp_path / "rotated.mp4"
    find_ffmpeg().run(["-display_rotation", "90", "-i", str(clip), "-c", "copy", str(rotated)], purpose="rotate")
    upright = next(open_video(clip).decode(np.array([0])))
    turned = next(open_video(rotated).decode(np.array([0])))
    assert upright.shape == (144, 176, 3)
    assert turned.shape == (176, 144, 3)


def test_what_is_no_video_has_a_reason(tmp_path: Path, make_clip: MakeClip) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    nothing = tmp_path / "nothing.mp4"
    nothing.touch()
    sound = tmp_path / "sound.wav"
    sound.write_bytes(_silence())
    cut = tmp_path / "cut.mp4"
    whole = make_clip("short.mp4", "-frames:v", "20", "-crf", "20").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    expected = {
        tmp_path / "absent.mp4": FailureReason.MISSING,
        tmp_path: FailureReason.MISSING,
        nothing: FailureReason.EMPTY,
        text: FailureReason.UNREADABLE,
        sound: FailureReason.NO_VIDEO_STREAM,
        cut: FailureReason.UNREADABLE,
    }
    for path, reason in expected.items():
        with pytest.raises(VideoUnusableError) as caught:
            open_video(path)
        assert caught.value.reason == reason, path
        assert caught.value.detail


def test_absurd_timestamps_give_way_to_the_frame_rate() -> None:
    from diffvqa.stages.frames import _plausible_times

    unset = np.full((5, 2), 9.2e15)
    np.testing.assert_allclose(_plausible_times(unset, 10.0).starts, [0.0, 0.1, 0.2, 0.3, 0.4])
    assert _plausible_times(unset, float("nan")).end == pytest.approx(5 / 25)
    repeated = np.array([[0.0, 0.1], [0.0, 0.1], [0.1, 0.2]])
    assert _plausible_times(repeated, 10.0).end == pytest.approx(0.3)


def _silence() -> bytes:
    import io
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return buffer.getvalue()
