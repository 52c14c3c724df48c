"""What a file says of its video before anything of it is decoded: which frames there are, and when they are shown.

All decoders work from this one index, so that all of them sample the same frames.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from diffvqa.stages._decoders.libav import in_words, listening_to_libav, open_container
from diffvqa.stages._decoders.orientation import Orientation, exif_orientation, orientation_of
from diffvqa.stages._failures import FailureReason, VideoUnusableError
from diffvqa.stages._frames import FrameTimes

_DAY = 24 * 3600.0
_FALLBACK_RATE = 25.0
_ENDS_TOO_EARLY = re.compile("partial file|ended prematurely|truncated", re.IGNORECASE)
# Containers that keep decoding times alone: what libav gives as presentation times of reordered frames is a guess.
_WITHOUT_PRESENTATION_TIMES = frozenset({"avi"})
_COUNTING_TICKS_AS_FRAMES = frozenset({"avi"})
_CONTAINER_TICKS = 1e6  # a container's duration is in microseconds


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a file's best video stream, in presentation order.

    Attributes:
        container: libav's name of the file format.
        stream: Number of the stream.
        times: When the frames are shown.
        pts: (frames,) int64, presentation times in the stream's unit, ascending; None when the file has none that
            tell its frames apart, which are then found by counting.
        packets: (frames,) int64, the packet that holds each frame, counted in decoding order.
        packet_pts: Presentation time of every packet of the stream, in decoding order; None where it has none.
        key_packets: (keys,) int64, packets at which decoding can begin, ascending.
        incomplete: (frames,) bool, whose data the file does not hold in full.
        width: Of a stored frame, in pixels.
        height: Of a stored frame, in pixels.
        bits: Of each of its values, such as 8 or 10.
        orientation: What makes it upright.
        frame_rate: Mean frames per second.
        complaints: What libav said of a file that it cannot read to its end; empty for a sound one.
    """

    container: str
    stream: int
    times: FrameTimes
    pts: NDArray[np.int64] | None
    packets: NDArray[np.int64]
    packet_pts: tuple[int | None, ...]
    key_packets: NDArray[np.int64]
    incomplete: NDArray[np.bool_]
    width: int
    height: int
    bits: int
    orientation: Orientation
    frame_rate: float
    complaints: str

    def decoding_start(self, index: int) -> int:
        """Return the packet from which frame ``index`` can be decoded.

        A frame shown before its key frame but stored after it needs the key frame before that one.
        """
        if self.pts is None:
            return 0
        before = self.key_packets[self.key_packets <= self.packets[index]]
        for packet in before[::-1].tolist():
            pts = self.packet_pts[packet]
            if pts is not None and pts <= self.pts[index]:
                return int(packet)
        return 0

    def may_refer_to(self, index: int, packet: int) -> bool:
        """Whether decoding frame ``index`` may need what ``packet`` holds, of those between its start and its own.

        Pictures that are shown before their key frame, though stored after it, are needed by one another alone.
        """
        before = self.key_packets[self.key_packets <= packet]
        shown, key_shown = self.packet_pts[packet], self.packet_pts[before[-1]] if len(before) else None
        if self.pts is None or shown is None or key_shown is None or shown >= key_shown:
            return True
        return bool(self.pts[index] < key_shown)


def index_video(path: Path) -> VideoIndex:
    """Read through a file's packets and list the frames of its best video stream.

    Of the pictures, only the first is decoded, to learn its size and orientation.

    Raises:
        VideoUnusableError: It is missing, empty, no video, without frames, or not to be read.
    """
    _require_file(path)
    with listening_to_libav() as words:
        try:
            with open_container(path) as container:
                stream = _best_stream(container)
                packets = _read_packets(container, stream)
                return _index(path, container, stream, packets, words.new())
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError, OSError) as error:
            said = in_words(error) if isinstance(error, av.error.FFmpegError) else str(error)
            raise VideoUnusableError(FailureReason.UNREADABLE, f"{said}\n{words.new()}") from error


def _require_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise VideoUnusableError(FailureReason.MISSING, f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise VideoUnusableError(FailureReason.UNREADABLE, str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoUnusableError(FailureReason.UNREADABLE, "it is a folder or a device, not a file")
    if status.st_size == 0:
        raise VideoUnusableError(FailureReason.EMPTY, "the file has 0 bytes")


def _best_stream(container: InputContainer) -> VideoStream:
    """Return the stream that players show; a cover picture is none."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not container.streams:
        raise VideoUnusableError(FailureReason.UNREADABLE, "nothing in the file can be recognised")
    if not moving:
        raise VideoUnusableError(FailureReason.NO_VIDEO_STREAM, "the file holds no video stream")
    best = container.streams.best("video")
    chosen = next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])
    if chosen.codec_context is None:
        raise VideoUnusableError(FailureReason.UNREADABLE, "there is no decoder for its video stream")
    return chosen


@dataclass
class _Packets:
    """What the packets of a stream say, in decoding order, and the first frame among them."""

    pts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    incomplete: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    first_frame: VideoFrame | None = None
    broken_off: str = ""


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    read = _Packets()
    stream.codec_context.thread_count = 1
    for other in container.streams:
        other.discard = Discard.default if other.index == stream.index else Discard.all
    try:
        for packet in container.demux(stream):
            if packet.size:
                read.pts.append(packet.pts)
                read.durations.append(packet.duration or 0)
                read.keys.append(packet.is_keyframe)
                read.incomplete.append(packet.is_corrupt)
                read.shown.append(not (packet.is_discard or _is_hidden(packet, stream)))
            if read.first_frame is None:
                read.first_frame = _first_frame_of(packet)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        read.broken_off = in_words(error)
    return read


def _first_frame_of(packet: Packet[VideoStream]) -> VideoFrame | None:
    try:
        return next(iter(packet.decode()), None)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return None


def _is_hidden(packet: Packet[VideoStream], stream: VideoStream) -> bool:
    """Whether a VP8 packet is an alternate reference, which is decoded but never shown."""
    return stream.codec_context.codec.canonical_name == "vp8" and not bytes(packet)[0] & 0x10


def _index(path: Path, container: InputContainer, stream: VideoStream, read: _Packets, complaints: str) -> VideoIndex:
    numbers = np.flatnonzero(read.shown)
    if len(numbers) == 0:
        raise VideoUnusableError(FailureReason.TOO_SHORT, f"the video stream holds no frames\n{complaints}")
    if read.first_frame is None:
        raise VideoUnusableError(FailureReason.UNREADABLE, f"no frame can be decoded\n{complaints}")
    pts = _distinct_pts([read.pts[number] for number in numbers])
    order = np.arange(len(numbers)) if pts is None else np.argsort(pts)
    is_guess = container.format.name in _WITHOUT_PRESENTATION_TIMES and stream.codec_context.has_b_frames
    packets = np.sort(numbers) if pts is None or is_guess else numbers[order]
    incomplete = np.asarray(read.incomplete, dtype=np.bool_)
    cut_short = bool(
        read.broken_off
        or incomplete[-1]
        or _ENDS_TOO_EARLY.search(complaints)
        or (container.format.name.startswith("mov") and len(stream.index_entries) > len(read.pts))
    )
    rate = _frame_rate(stream)
    times = _times(pts, len(numbers), read.durations[int(numbers[order[-1]])], stream, rate)
    return VideoIndex(
        container=container.format.name,
        stream=stream.index,
        times=FrameTimes(times.starts, times.end, _promised_end(container, stream, times.end)) if cut_short else times,
        pts=None if pts is None or is_guess else pts[order],
        packets=packets.astype(np.int64),
        packet_pts=tuple(read.pts),
        key_packets=np.flatnonzero(read.keys).astype(np.int64),
        incomplete=incomplete[packets],
        width=read.first_frame.width,
        height=read.first_frame.height,
        bits=max(component.bits for component in read.first_frame.format.components),
        orientation=_orientation(read.first_frame, path),
        frame_rate=rate,
        complaints=f"{read.broken_off}\n{complaints}".strip() if cut_short else "",
    )


def _distinct_pts(pts: list[int | None]) -> NDArray[np.int64] | None:
    known = [time for time in pts if time is not None]
    return np.array(known, dtype=np.int64) if len(set(known)) == len(pts) else None


def _times(
    pts: NDArray[np.int64] | None, frames: int, last_duration: int, stream: VideoStream, rate: float
) -> FrameTimes:
    """Use the file's times where they make sense, else those of a constant frame rate."""
    if pts is not None and stream.time_base is not None:
        unit = float(stream.time_base)
        starts = (np.sort(pts) - pts.min()) * unit
        if starts[-1] < _DAY:
            usual_interval = float(np.median(np.diff(starts))) if len(starts) > 1 else 1 / rate
            return FrameTimes(starts, float(starts[-1]) + (last_duration * unit or usual_interval))
    return FrameTimes(np.arange(frames) / rate, frames / rate)


def _frame_rate(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.base_rate
    return float(rate) if rate else _FALLBACK_RATE


def _promised_end(container: InputContainer, stream: VideoStream, end: float) -> float:
    """Return when the file's header says that the video ends, in seconds; no earlier than it does."""
    unit = float(stream.time_base or 0)
    promises = [(stream.duration or 0) * unit, (container.duration or 0) / _CONTAINER_TICKS]
    if container.format.name in _COUNTING_TICKS_AS_FRAMES:
        promises.append(stream.frames * unit)
    return max(end, *(promise for promise in promises if promise < _DAY))


def _orientation(frame: VideoFrame, path: Path) -> Orientation:
    try:
        attached = cast(SideDataContainer, frame.side_data)  # PyAV's stub calls it a dictionary
        return orientation_of(bytes(attached[SideDataType.DISPLAYMATRIX]))
    except KeyError:
        return Orientation.UPRIGHT
    except ValueError:  # something is attached that PyAV has no name for, as the EXIF block of a photograph
        return exif_orientation(path)
