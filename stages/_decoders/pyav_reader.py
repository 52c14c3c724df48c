"""Frames through PyAV: opens what current FFmpeg opens, and knows which frames were decoded whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import av.filter
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from diffvqa.stages._decoders.libav import in_words, listening_to_libav, open_container
from diffvqa.stages._decoders.reader import DecoderUnfitError, FrameDamagedError
from diffvqa.stages._decoders.video_index import VideoIndex

# What libav says of whole frames too: about references that nothing needs, and features that are only hints.
_HARMLESS = re.compile(r"mmco|unref short|co located POCs|not implemented|deprecated", re.IGNORECASE)


@dataclass(frozen=True)
class _Output:
    """A frame that the decoder gave, and which it is; None where that cannot be told."""

    index: int | None
    frame: VideoFrame


class PyAVReader:
    """Reads frames with PyAV, from the nearest key frame on.

    Args:
        path: The video file.
        index: What it holds.
    """

    decoder = f"PyAV {av.__version__}"

    def __init__(self, path: Path, index: VideoIndex) -> None:
        self._path = path
        self._index = index
        self._frame_of_pts = {} if index.pts is None else {pts: i for i, pts in enumerate(index.pts.tolist())}
        self._packet_of_pts = {pts: number for number, pts in enumerate(index.packet_pts) if pts is not None}
        self._converter = _Converter(index)
        self._outputs: Iterator[_Output] = iter(())
        self._peeked: _Output | None = None
        self._first_fed = self._fed = self._reached = -1
        self._bad_packets: list[int] = []
        self._complaints = ""

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._words = self._open.enter_context(listening_to_libav())
        try:
            self._open_file()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._outputs, self._peeked = iter(()), None  # the decoder's frames go with them
        self._container.close()
        self._open.close()

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one frame; see :meth:`diffvqa.stages._decoders.reader.FrameReader.read`."""
        if self._index.incomplete[index]:
            raise FrameDamagedError(f"the file ends within frame {index}\n{self._index.complaints}")
        self._go_before(index)
        last_good = None
        while (output := self._peek()) is not None:
            if output.index is not None and output.index > index:
                break
            self._peeked = None
            self._reached = self._reached if output.index is None else output.index
            is_good = output.index is not None and self._is_whole(output.index)
            if output.index == index:
                if is_good:
                    return self._converter.to_rgb(output.frame)
                break
            last_good = output.index if is_good else last_good
        said = f"frame {index} cannot be decoded whole\n{self._complaints}"
        raise FrameDamagedError(said, last_good)

    def _go_before(self, index: int) -> None:
        """Bring the decoder to where the next frames lead to ``index``, by the shortest way."""
        start = self._index.decoding_start(index)
        if self._reached < index and start <= self._fed + 1:
            return
        self._seek(start)
        first = self._peek()
        if self._first_fed > start or first is None or (first.index is not None and first.index > index):
            self._rewind()

    def _seek(self, packet: int) -> None:
        pts = self._index.packet_pts[packet]
        if packet == 0 or pts is None:
            self._rewind()
            return
        try:
            self._container.seek(pts, stream=self._stream)
        except av.error.FFmpegError:
            self._rewind()
            return
        self._begin(fed=None)

    def _rewind(self) -> None:
        self._container.close()
        self._open_file()

    def _open_file(self) -> None:
        try:
            self._container = open_container(self._path)
        except av.error.FFmpegError as error:  # it could be opened before: someone changes it just now
            raise DecoderUnfitError(in_words(error)) from error
        stream = self._container.streams[self._index.stream]
        assert isinstance(stream, VideoStream)  # noqa: S101  # so it was when the index was made
        self._stream = stream
        self._stream.codec_context.thread_count = 1
        self._begin(fed=-1)

    def _begin(self, fed: int | None) -> None:
        """Forget what was decoded before a jump; ``fed`` is the packet before the next, None where that is unknown."""
        self._outputs = self._decode(fed)
        self._peeked = None
        self._first_fed = self._fed = len(self._index.packet_pts) if fed is None else 0
        self._reached = -1
        self._bad_packets = []
        self._complaints = ""
        self._words.new()

    def _peek(self) -> _Output | None:
        if self._peeked is None:
            self._peeked = next(self._outputs, None)
        return self._peeked

    def _decode(self, fed: int | None) -> Iterator[_Output]:
        """Decode packet after packet, note the bad ones, and yield the frames."""
        count = 0
        is_first = True
        for packet in self._packets():
            number = self._packet_of_pts.get(packet.pts) if packet.pts is not None else None
            if number is None or self._index.pts is None:
                number = (fed if fed is not None else -1) + 1
            fed = self._fed = number
            if is_first:
                self._first_fed, is_first = number, False
            for frame in self._frames_of(packet, number):
                index = self._which(frame, count)
                count += 1
                if frame.is_corrupt:
                    self._bad_packets.append(number if index is None else int(self._index.packets[index]))
                yield _Output(index, frame)

    def _which(self, frame: VideoFrame, count: int) -> int | None:
        """Tell which frame this is: by its time, or by counting where times do not tell."""
        if self._index.pts is None:
            return count if count < len(self._index.packets) else None
        return self._frame_of_pts.get(frame.pts) if frame.pts is not None else None

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            yield from self._container.demux(self._stream)
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            self._complaints = self._complaints or in_words(error)

    def _frames_of(self, packet: Packet[VideoStream], number: int) -> list[VideoFrame]:
        try:
            frames = packet.decode()
            failure = ""
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            frames, failure = [], in_words(error)
        said = "\n".join(line for line in self._words.new().splitlines() if not _HARMLESS.search(line))
        if failure or said or packet.is_corrupt:
            self._bad_packets.append(number)
            self._complaints = self._complaints or f"{failure}\n{said}".strip()
        return frames

    def _is_whole(self, index: int) -> bool:
        """Whether neither the frame's packet nor one that it may refer to was bad."""
        start, own = self._index.decoding_start(index), int(self._index.packets[index])
        if start < self._first_fed:
            return False
        if self._index.pts is None:
            return not self._bad_packets
        return not any(start <= bad <= own and self._index.may_refer_to(index, bad) for bad in self._bad_packets)


class _Converter:
    """Turns decoded frames upright and into RGB, by the same filters as decord's."""

    def __init__(self, index: VideoIndex) -> None:
        sides = (index.height, index.width) if index.orientation.swaps_sides else (index.width, index.height)
        self._filters = (*index.orientation.filters, ("scale", f"{sides[0]}:{sides[1]}"), ("format", "pix_fmts=rgb24"))
        self._layout: tuple[object, ...] | None = None

    def to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        layout = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if layout != self._layout:
            self._graph, self._layout = self._configured_for(frame), layout
        self._graph.vpush(frame)
        return np.asarray(self._graph.vpull().to_ndarray(), dtype=np.uint8)

    def _configured_for(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        steps = [graph.add(name, argument) if argument else graph.add(name) for name, argument in self._filters]
        graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
        return graph
