"""From a video file to a few frames of it, chosen by presentation time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FailureReason(StrEnum):
    """Why a video could not be used."""

    MISSING = "missing"
    EMPTY = "empty"
    NO_VIDEO_STREAM = "no_video_stream"
    UNREADABLE = "unreadable"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"


class VideoUnusableError(Exception):
    """A video cannot be used; becomes a row with a reason, never the end of a run.

    Args:
        reason: The kind of failure.
        detail: The decoder's own words, or empty.
    """

    def __init__(self, reason: FailureReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a video are shown.

    Attributes:
        starts: (frames,) float64, seconds, ascending.
        end: When the last frame ends, in seconds.
    """

    starts: NDArray[np.float64]
    end: float


@dataclass(frozen=True)
class OpenVideo:
    """A video ready to be decoded.

    Attributes:
        times: When its frames are shown.
        decoder: Name and version of the decoder.
    """

    times: FrameTimes
    decoder: str
    _reader: Any

    def decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames at ``indices`` one by one, each (H, W, 3) uint8 RGB, upright.

        Raises:
            VideoUnusableError: A frame cannot be decoded.
        """
        import decord

        for index in indices:
            try:
                yield self._reader[int(index)].asnumpy()
            except (decord.DECORDError, RuntimeError, IndexError) as error:
                raise VideoUnusableError(FailureReason.UNREADABLE, f"frame {index}: {error}") from error


def open_video(path: Path) -> OpenVideo:
    """Open a video with decord.

    Raises:
        VideoUnusableError: It is missing, empty, has no video stream, or cannot be read.
    """
    import decord

    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise VideoUnusableError(FailureReason.UNREADABLE, str(error)) from error
    if size is None:
        raise VideoUnusableError(FailureReason.MISSING, f"there is no file {path}")
    if size == 0:
        raise VideoUnusableError(FailureReason.EMPTY, "the file has 0 bytes")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        spans = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
    except (decord.DECORDError, RuntimeError) as error:
        no_stream = "cannot find video stream" in str(error)
        reason = FailureReason.NO_VIDEO_STREAM if no_stream else FailureReason.UNREADABLE
        raise VideoUnusableError(reason, str(error)) from error
    if len(spans) == 0:
        raise VideoUnusableError(FailureReason.UNREADABLE, "the file holds no frames")
    return OpenVideo(_plausible_times(spans, reader.get_avg_fps()), f"decord {decord.__version__}", reader)


def centre_frames(times: FrameTimes, count: int) -> NDArray[np.int64]:
    """Return the indices of the frames shown at the centres of ``count`` equal segments of the video's duration.

    Args:
        times: When the frames are shown.
        count: Frames wanted (N).

    Returns:
        (F,) int64, strictly ascending, 1 <= F <= N: a video with fewer frames than segments gives each frame once.
    """
    begin = times.starts[0]
    centres = begin + (np.arange(count) + 0.5) / count * (times.end - begin)
    shown = np.searchsorted(times.starts, centres, side="right") - 1
    return np.unique(shown.clip(0, len(times.starts) - 1)).astype(np.int64)


def _plausible_times(spans: NDArray[np.float64], frames_per_second: float) -> FrameTimes:
    """Use the container's times where they make sense, else those of a constant frame rate.

    Some files carry no timestamps (decord then gives about 9e15 s) or repeat them.
    """
    starts, ends = spans[:, 0], spans[:, 1]
    day = 24 * 3600.0
    if np.isfinite(spans).all() and np.abs(spans).max() < day and (np.diff(starts) > 0).all() and ends[-1] > starts[-1]:
        return FrameTimes(starts, float(ends[-1]))
    rate = frames_per_second if np.isfinite(frames_per_second) and frames_per_second > 0 else 25.0
    return FrameTimes(np.arange(len(spans)) / rate, len(spans) / rate)
