"""Frames through decord: fast, and exact on sound files of the kinds it knows; it declines all others.

Its FFmpeg is old. It takes some streams' frames in the wrong order after a jump, repeats the last good frame in the
place of a damaged one, and can search without end for frames that are not there. So it is given only files of which
none of this is to be expected, and what it then complains of makes it decline.
"""

from __future__ import annotations

import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages._decoders.native_words import listening_to_standard_error
from diffvqa.stages._decoders.reader import DecoderUnfitError
from diffvqa.stages._decoders.video_index import VideoIndex

_CONTAINERS = ("mov,", "matroska,", "mpegts", "flv", "avi")
# More than this share of frames that could not be decoded is an error; it would hand out copies of others.
_NO_REPEATED_FRAMES = 1e-9
_SAME_TIME_S = 1e-3


class DecordReader:
    """Reads frames with decord.

    Args:
        path: The video file.
        index: What it holds.

    Raises:
        DecoderUnfitError: decord is not installed, or not to be trusted with this file.
    """

    def __init__(self, path: Path, index: VideoIndex) -> None:
        try:
            import decord
        except (ImportError, OSError) as error:
            raise DecoderUnfitError(f"decord is not installed: {error}") from error
        if reason := _why_not(index):
            raise DecoderUnfitError(f"decord does not give exact frames of {reason}")
        self._decord = decord
        self._path = path
        self._index = index
        self._last_checksum: int | None = None
        self.decoder = f"decord {decord.__version__}"

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._words = self._open.enter_context(listening_to_standard_error())
        try:
            self._reader = self._opened()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._reader
        self._open.close()

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one frame; see :meth:`diffvqa.stages._decoders.reader.FrameReader.read`."""
        try:
            frame = np.asarray(self._reader[index].asnumpy(), dtype=np.uint8)
        except (self._decord.DECORDError, RuntimeError, IndexError) as error:
            raise self._unfit(str(error)) from error
        if self._words.so_far():
            raise self._unfit("decord complained")
        if frame.shape != self._shape():
            raise self._unfit(f"decord gives frames of {frame.shape}, not {self._shape()}")
        checksum = zlib.crc32(frame.data)
        if checksum == self._last_checksum:
            raise self._unfit(f"decord gives frame {index} and the one before it alike: it may have lost it")
        self._last_checksum = checksum
        return frame

    def _opened(self) -> Any:  # decord has no types
        try:
            reader = self._decord.VideoReader(f"file:{self._path}", num_threads=1, fault_tol=_NO_REPEATED_FRAMES)
            spans = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
        except (self._decord.DECORDError, RuntimeError, UnicodeError) as error:
            raise self._unfit(str(error)) from error
        starts = self._index.times.starts
        if len(spans) != len(starts) or np.abs(spans[:, 0] - spans[0, 0] - starts).max() > _SAME_TIME_S:
            raise self._unfit(f"decord finds {len(spans)} frames, not {len(starts)}, or at other times")
        return reader

    def _shape(self) -> tuple[int, int, int]:
        height, width = self._index.height, self._index.width
        return (width, height, 3) if self._index.orientation.swaps_sides else (height, width, 3)

    def _unfit(self, detail: str) -> DecoderUnfitError:
        if "bad_alloc" in detail or "Cannot allocate memory" in detail:
            raise MemoryError(detail)
        return DecoderUnfitError(f"{detail}\n{self._words.so_far()}".strip())


def _why_not(index: VideoIndex) -> str:
    """Say what about a file makes decord's frames doubtful; empty for nothing."""
    if not index.container.startswith(_CONTAINERS):
        return f"a file of format {index.container}"
    if index.complaints or index.incomplete.any():
        return "a damaged file"
    if index.pts is None:
        return "a file without presentation times"
    if len(index.packets) != len(index.packet_pts):
        return "a file with packets that are not shown"
    if index.orientation.is_mirrored:
        return "a mirrored video"
    if (index.width if index.orientation.swaps_sides else index.height) % 2:
        return "a video of odd height"  # whose colours its libswscale interpolates in its own way
    shown_at = np.empty(len(index.packets), dtype=np.int64)
    shown_at[index.packets] = np.arange(len(index.packets))
    if (shown_at[index.key_packets] != index.key_packets).any():
        return "a video with open groups of pictures"
    return ""
