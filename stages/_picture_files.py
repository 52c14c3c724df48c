"""Writing pictures and videos for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffvqa.cache._atomic import atomic_output, reporting_output_errors

PICTURE_FORMATS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
VIDEO_FORMATS = frozenset({".mkv", ".mov", ".mp4"})
_NEARLY_LOSSLESS = "12"


def save_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as a picture file, atomically; its suffix says which kind.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_output(path) as temporary, reporting_output_errors(path):
        Image.fromarray(picture).save(temporary)


def save_video(path: Path, frames: Sequence[NDArray[np.uint8]], frame_rate: float) -> None:
    """Write frames as an H.264 video, atomically, nearly without loss.

    Args:
        path: Its suffix says which container.
        frames: Each (H, W, 3) uint8 RGB, all of one size; a last odd row or column is left out.
        frame_rate: Frames per second.

    Raises:
        OutputError: It cannot be written.
    """
    import av
    from av.video.stream import VideoStream

    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with atomic_output(path) as temporary, reporting_output_errors(path), av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1000))
        assert isinstance(stream, VideoStream)  # noqa: S101  # so is that codec
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": _NEARLY_LOSSLESS}
        for frame in frames:
            cut = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode(None))
