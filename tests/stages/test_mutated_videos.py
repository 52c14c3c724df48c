"""Two thousand damaged videos: documented outcomes alone, and no frame given twice. Takes about half a minute."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import MakeClip

from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._failures import FailureReason

VIDEOS = 2000
SMALL = ("-frames:v", "16", "-vf", "scale=64:48", "-g", "6")
CLIPS = {
    "h264.mp4": ("-c:v", "libx264", "-bf", "1", "-movflags", "+faststart"),
    "h264.mkv": ("-c:v", "libx264"),
    "h264.ts": ("-c:v", "libx264", "-bf", "0"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:pools=1"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "4"),
    "mjpeg.mov": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "animation.gif": ("-pix_fmt", "rgb8"),
}
DECODERS_OUTCOMES = {
    FailureReason.NO_VIDEO_STREAM,
    FailureReason.UNREADABLE,
    FailureReason.TRUNCATED,
    FailureReason.TOO_SHORT,
    FailureReason.TIMEOUT,
    FailureReason.OUT_OF_MEMORY,
    FailureReason.CRASHED,
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, blank a stretch, cut the end off, or move a piece."""
    out = bytearray(data)
    match rng.randrange(5):
        case 0 | 1:
            for _ in range(rng.choice([1, 3, 20])):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 2:
            at = rng.randrange(len(out))
            length = min(rng.choice([4, 50, 500]), len(out) - at)
            out[at : at + length] = bytes(length)
        case 3:
            del out[rng.randrange(len(out)) :]
        case _:
            at, to, length = rng.randrange(len(out)), rng.randrange(len(out)), rng.choice([8, 100])
            piece = out[at : at + length]
            out[to : to + len(piece)] = piece
    return bytes(out)


@pytest.fixture
def mutants(make_clip: MakeClip, tmp_path: Path) -> Iterator[list[VideoSource]]:
    originals = [make_clip(f"small-{name}", *SMALL, *arguments).read_bytes() for name, arguments in CLIPS.items()]
    rng = random.Random(20)
    sources = []
    for number, original, name in zip(range(VIDEOS), itertools.cycle(originals), itertools.cycle(CLIPS), strict=False):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(mutated(original, rng))
        sources.append(VideoSource(path.name, path))
    yield sources
    for source in sources:
        source.path.unlink()


def test_two_thousand_mutated_videos_have_documented_outcomes_alone(
    mutants: list[VideoSource], processes_left: Callable[[], set[int]]
) -> None:
    # The whole frame is the view, so that no two different frames look alike.
    recipe = ExtractRecipe(frames=4, view_size=64, crops=1, good_frames=0.25)
    gc.collect()  # files that an earlier test left open are not to be closed meanwhile
    files = psutil.Process().num_fds()
    with DecodePool(recipe, workers=2, timeout=5.0, memory=1024) as pool:
        results = list(pool.run(mutants))
    assert [result.source for result in results] == mutants
    failures = [result for result in results if isinstance(result, FailedVideo)]
    assert {failure.reason for failure in failures} <= DECODERS_OUTCOMES
    assert all(failure.detail for failure in failures)
    decoded = [result for result in results if isinstance(result, DecodedVideo)]
    assert len(decoded) > VIDEOS / 4
    assert len(failures) > VIDEOS / 20
    for video in decoded:
        assert 1 <= len(video.resize) <= 4
        assert (np.diff(video.frame_indices) > 0).all()
        for first, second in itertools.combinations(video.resize, 2):
            assert not np.array_equal(first, second), video.source.video_id
    assert psutil.Process().num_fds() <= files
    assert not processes_left()
