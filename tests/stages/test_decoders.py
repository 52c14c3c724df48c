"""Both decoders give the same frames, those that ffmpeg gives, of whatever a camera or an encoder may have made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip
from numpy.typing import NDArray
from PIL import Image, ImageOps

from diffvqa.pipeline._ffmpeg import find_ffmpeg
from diffvqa.stages._decoders.decord_reader import DecordReader
from diffvqa.stages._decoders.orientation import Orientation, orientation_of
from diffvqa.stages._decoders.pyav_reader import PyAVReader
from diffvqa.stages._decoders.reader import DecoderUnfitError, FrameReader
from diffvqa.stages._decoders.video_index import VideoIndex, index_video
from diffvqa.stages._decoding import VideoSource, decode_video
from diffvqa.stages._extract_recipe import ExtractRecipe

SHARED = Path(__file__).parents[3] / "shared/data/decode"
Frame = NDArray[np.uint8]
Open = Callable[[Path, VideoIndex], FrameReader]

# Ten frames in the first third of a second, then ten that last 0.2 s each.
SLOW_HALF = "setpts='if(lt(N,10),N/30,10/30+(N-10)*0.2)/TB'"
SMALL_GOP = ("-frames:v", "40", "-g", "12")


@dataclass(frozen=True)
class Kind:
    """A kind of video: its file's name, and how ffmpeg makes it."""

    name: str
    arguments: tuple[str, ...]


EXACT_IN_BOTH = [
    Kind("h264.mp4", (*SMALL_GOP, "-c:v", "libx264", "-preset", "veryfast", "-bf", "3")),
    Kind("h264.mkv", (*SMALL_GOP, "-c:v", "libx264", "-preset", "veryfast")),
    Kind("fragmented.mp4", (*SMALL_GOP, "-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov")),
    Kind("prores.mov", ("-frames:v", "20", "-c:v", "prores_ks", "-pix_fmt", "yuv422p10le")),
    Kind("timecode.mov", (*SMALL_GOP, "-c:v", "libx264", "-timecode", "01:00:00:00")),
    Kind("h264.ts", (*SMALL_GOP, "-c:v", "libx264", "-preset", "veryfast", "-bf", "0")),
    Kind("h264.flv", (*SMALL_GOP, "-c:v", "libx264", "-bf", "2")),
    Kind("hevc.mp4", (*SMALL_GOP, "-c:v", "libx265", "-x265-params", "open-gop=0:log-level=none:pools=1")),
    Kind("vp8.webm", (*SMALL_GOP, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")),
    Kind("vp9.webm", (*SMALL_GOP, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")),
    Kind("mpeg4.mp4", (*SMALL_GOP, "-c:v", "mpeg4", "-q:v", "4")),
    Kind("mjpeg.avi", ("-frames:v", "20", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p")),
    Kind("full_range.mp4", (*SMALL_GOP, "-c:v", "libx264", "-vf", "scale=out_range=full", "-color_range", "pc")),
    Kind("bt709.mp4", (*SMALL_GOP, "-c:v", "libx264", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709")),
    Kind("interlaced.mp4", (*SMALL_GOP, "-c:v", "libx264", "-flags", "+ildct+ilme", "-x264-params", "tff=1")),
    Kind("odd_width.webm", (*SMALL_GOP, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-vf", "scale=175:144")),
    Kind("444.mp4", (*SMALL_GOP, "-c:v", "libx264", "-pix_fmt", "yuv444p")),
    Kind("422.mp4", (*SMALL_GOP, "-c:v", "libx264", "-pix_fmt", "yuv422p")),
    Kind("one_frame.mp4", ("-frames:v", "1", "-c:v", "libx264")),
    Kind("variable_rate.mp4", ("-frames:v", "20", "-vf", SLOW_HALF, "-fps_mode", "vfr")),
]  # fmt: skip
CLOSE_IN_BOTH = [
    Kind("ten_bit.mp4", (*SMALL_GOP, "-c:v", "libx264", "-pix_fmt", "yuv420p10le")),
]
EXACT_AT_LEAST_IN_PYAV = [
    Kind("intra_refresh.mp4", (*SMALL_GOP, "-c:v", "libx264", "-x264-params", "intra-refresh=1")),
]
PYAV_ALONE = [
    Kind("odd_height.webm", (*SMALL_GOP, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-vf", "scale=176:143")),
    Kind("open_gop.ts", (*SMALL_GOP, "-c:v", "libx264", "-bf", "3", "-x264-params", "open-gop=1")),
    Kind("av1.mkv", ("-frames:v", "20", "-c:v", "libsvtav1", "-preset", "12", "-g", "8", "-svtav1-params", "lp=1")),
    Kind("open_gop_h264.mp4", (*SMALL_GOP, "-c:v", "libx264", "-bf", "3", "-x264-params", "open-gop=1")),
    Kind("open_gop.mp4", (*SMALL_GOP, "-c:v", "libx265", "-x265-params", "open-gop=1:log-level=none:pools=1")),
    Kind("mpeg2.mpg", (*SMALL_GOP, "-c:v", "mpeg2video", "-bf", "2")),
    Kind("wmv2.wmv", (*SMALL_GOP, "-c:v", "wmv2")),
    Kind("b_frames.avi", (*SMALL_GOP, "-c:v", "mpeg4", "-bf", "2", "-q:v", "4")),
    Kind("no_times.h264", (*SMALL_GOP, "-c:v", "libx264", "-bf", "2")),
    Kind("animation.gif", ("-frames:v", "12", "-pix_fmt", "rgb8")),
    Kind("still.png", ("-frames:v", "1", "-pix_fmt", "rgb24")),
    Kind("still.jpg", ("-frames:v", "1", "-pix_fmt", "yuvj420p", "-strict", "unofficial")),
]  # fmt: skip


def by_name(kind: Kind) -> str:
    return kind.name


def made(kind: Kind, make_clip: MakeClip) -> Path:
    return make_clip(kind.name, *kind.arguments)


def frames_through(open_reader: Open, clip: Path, order: list[int] | None = None) -> dict[int, Frame]:
    index = index_video(clip)
    with open_reader(clip, index) as reader:
        return {i: reader.read(i) for i in order or range(len(index.times.starts))}


def frames_of_ffmpeg(clip: Path, shape: tuple[int, ...], tmp_path: Path) -> list[Frame]:
    """Decode it from its first frame to its last, as nothing that jumps can be wrong about."""
    raw = tmp_path / f"{clip.name}.rgb"
    to_rgb = ["-fps_mode", "passthrough", "-sws_flags", "bicubic", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    find_ffmpeg().run(["-threads", "1", "-i", str(clip), *to_rgb, str(raw)], purpose="reference frames")
    return list(np.fromfile(raw, dtype=np.uint8).reshape(-1, *shape))


def largest_difference(first: Frame, second: Frame) -> int:
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("kind", [*EXACT_IN_BOTH, *CLOSE_IN_BOTH, *EXACT_AT_LEAST_IN_PYAV, *PYAV_ALONE], ids=by_name)
def test_pyav_gives_the_frames_that_ffmpeg_gives_in_whatever_order_they_are_asked_for(
    kind: Kind, make_clip: MakeClip, tmp_path: Path
) -> None:
    clip = made(kind, make_clip)
    in_order = frames_through(PyAVReader, clip)
    expected = frames_of_ffmpeg(clip, in_order[0].shape, tmp_path)
    assert len(in_order) == len(expected)
    assert [largest_difference(in_order[i], frame) for i, frame in enumerate(expected)] == [0] * len(expected)
    shuffled = np.random.default_rng(0).permutation(len(expected)).tolist()
    for i, frame in frames_through(PyAVReader, clip, shuffled[:12]).items():
        assert largest_difference(frame, expected[i]) == 0, i


@pytest.mark.parametrize("kind", EXACT_IN_BOTH, ids=by_name)
def test_both_decoders_give_the_same_frames(kind: Kind, make_clip: MakeClip) -> None:
    clip = made(kind, make_clip)
    through_pyav = frames_through(PyAVReader, clip)
    sampled = sorted({0, len(through_pyav) // 3, len(through_pyav) // 2, len(through_pyav) - 1})
    for i, frame in frames_through(DecordReader, clip, sampled).items():
        assert largest_difference(frame, through_pyav[i]) == 0, i


@pytest.mark.parametrize("kind", CLOSE_IN_BOTH, ids=by_name)
def test_where_decoders_differ_they_do_so_within_a_bound_and_all_platforms_take_one(
    kind: Kind, make_clip: MakeClip
) -> None:
    clip = made(kind, make_clip)
    through_pyav = frames_through(PyAVReader, clip)
    for i, frame in frames_through(DecordReader, clip, [0, 7, 31]).items():
        difference = np.abs(frame.astype(int) - through_pyav[i])
        assert difference.mean() <= 1.0, i
        assert np.quantile(difference, 0.999) <= 32, i
    sampled = decode_video(VideoSource("v", clip), ExtractRecipe(frames=2))
    assert sampled.decoder.startswith("PyAV ")


@pytest.mark.parametrize("kind", PYAV_ALONE, ids=by_name)
def test_decord_declines_what_it_would_get_wrong(kind: Kind, make_clip: MakeClip) -> None:
    with pytest.raises(DecoderUnfitError) as caught:
        frames_through(DecordReader, made(kind, make_clip))
    assert caught.value.detail


ORIENTATIONS: dict[Orientation, tuple[tuple[str, ...], Callable[[Frame], Frame]]] = {
    Orientation.UPRIGHT: ((), lambda stored: stored),
    Orientation.CLOCKWISE: (("-display_rotation", "-90"), lambda stored: np.rot90(stored, -1)),
    Orientation.UPSIDE_DOWN: (("-display_rotation", "180"), lambda stored: np.rot90(stored, 2)),
    Orientation.COUNTERCLOCKWISE: (("-display_rotation", "90"), lambda stored: np.rot90(stored)),
    Orientation.MIRRORED: (("-display_hflip",), lambda stored: stored[:, ::-1]),
    Orientation.MIRRORED_UPSIDE_DOWN: (("-display_vflip",), lambda stored: stored[::-1]),
    Orientation.TRANSPOSED: (
        ("-display_rotation", "-90", "-display_hflip"),
        lambda stored: stored.transpose(1, 0, 2),
    ),
    Orientation.ANTITRANSPOSED: (
        ("-display_rotation", "90", "-display_hflip"),
        lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    ),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda orientation: orientation.name.lower())
def test_every_orientation_comes_upright(orientation: Orientation, make_clip: MakeClip, tmp_path: Path) -> None:
    options, upright = ORIENTATIONS[orientation]
    stored = make_clip("eight.mp4", "-frames:v", "8", "-c:v", "libx264")
    turned = tmp_path / "turned.mp4"
    find_ffmpeg().run([*options, "-i", str(stored), "-c", "copy", str(turned)], purpose="turn")
    assert index_video(turned).orientation == orientation
    expected = {i: upright(frame) for i, frame in frames_through(PyAVReader, stored).items()}
    for i, frame in frames_through(PyAVReader, turned).items():
        assert np.array_equal(frame, expected[i])
    if orientation.is_mirrored:
        with pytest.raises(DecoderUnfitError, match="mirrored"):
            frames_through(DecordReader, turned)
    else:
        for i, frame in frames_through(DecordReader, turned).items():
            assert np.array_equal(frame, expected[i])


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_photograph_comes_as_its_exif_block_wants_it(tag: int, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    block = Image.Exif()
    block[0x0112] = tag
    path = tmp_path / "photograph.jpg"
    Image.fromarray(picture).save(path, exif=block, quality=95, subsampling=0)
    (frame,) = frames_through(PyAVReader, path).values()
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 2


def test_a_slanted_picture_stays_as_it_is() -> None:
    slanted = np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30], dtype=np.int32)
    assert orientation_of(slanted.tobytes()) == Orientation.UPRIGHT


def test_the_larger_of_two_streams_is_read_and_never_the_cover(make_clip: MakeClip, tmp_path: Path) -> None:
    small = make_clip("small.mp4", "-frames:v", "10", "-c:v", "libx264", "-vf", "scale=88:72")
    large = make_clip("eight.mp4", "-frames:v", "8", "-c:v", "libx264")
    cover = make_clip("cover.png", "-frames:v", "1", "-pix_fmt", "rgb24", "-vf", "scale=1024:768")
    both = tmp_path / "both.mp4"
    find_ffmpeg().run(
        [
            "-i",
            str(small),
            "-i",
            str(large),
            "-map",
            "0",
            "-map",
            "1",
            "-disposition:v",
            "default",
            "-c",
            "copy",
            str(both),
        ],
        purpose="two streams",
    )
    covered = tmp_path / "covered.mp4"
    find_ffmpeg().run(
        ["-i", str(cover), "-i", str(large), "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic",
         str(covered)],
        purpose="a cover",
    )  # fmt: skip
    expected = frames_through(PyAVReader, large)
    for video in (both, covered):
        found = frames_through(PyAVReader, video)
        assert all(np.array_equal(found[i], expected[i]) for i in range(8))


def test_frames_before_the_beginning_of_an_edited_video_are_not_counted(make_clip: MakeClip, tmp_path: Path) -> None:
    whole = make_clip("h264.mp4", *SMALL_GOP, "-c:v", "libx264", "-preset", "veryfast", "-bf", "3")
    edited = tmp_path / "edited.mp4"
    find_ffmpeg().run(["-ss", "0.6", "-i", str(whole), "-c", "copy", str(edited)], purpose="cut without encoding")
    found = frames_through(PyAVReader, edited)
    expected = frames_through(PyAVReader, whole)
    assert len(found) == 22
    assert all(np.array_equal(found[i], expected[i + 18]) for i in found)


def test_a_still_scene_is_left_to_the_decoder_that_can_tell_it_from_a_lost_frame(make_clip: MakeClip) -> None:
    every_frame_alone = ("-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p")
    still = make_clip("still_scene.mov", "-frames:v", "20", "-vf", "loop=20:1:0", *every_frame_alone)
    with pytest.raises(DecoderUnfitError, match="alike"):
        frames_through(DecordReader, still, [3, 9])
    first, second = frames_through(PyAVReader, still, [3, 9]).values()
    assert np.array_equal(first, second)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("open_reader", [DecordReader, PyAVReader], ids=["decord", "pyav"])
def test_golden_frames_are_met_exactly(open_reader: Open) -> None:
    clip = SHARED / "tc_nasa_13013.mp4"
    golden = {int(path.stem[-6:]): np.load(path) for path in (SHARED / "golden").glob("*.npy")}
    assert len(golden) == 4
    found = frames_through(open_reader, clip, sorted(golden))
    for i, frame in golden.items():
        assert np.array_equal(found[i], frame), i
