"""Which decoder reads a video: decord first where it is exact, PyAV for all else, or the one that the user wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from diffvqa.stages._decoders.decord_reader import DecordReader
from diffvqa.stages._decoders.pyav_reader import PyAVReader
from diffvqa.stages._decoders.reader import DecoderUnfitError, FrameReader
from diffvqa.stages._decoders.video_index import VideoIndex

if TYPE_CHECKING:
    from diffvqa.stages._extract_recipe import DecoderChoice

OpenReader = Callable[[Path, VideoIndex], FrameReader]


def _decord_where_exact(path: Path, index: VideoIndex) -> FrameReader:
    """Leave to PyAV what decord converts in another way, so that every platform gives the same frames."""
    if index.bits > 8:
        raise DecoderUnfitError(f"decord converts {index.bits}-bit video in its own way")
    return DecordReader(path, index)


_READERS: Mapping[DecoderChoice, tuple[OpenReader, ...]] = MappingProxyType(
    {"auto": (_decord_where_exact, PyAVReader), "decord": (DecordReader,), "pyav": (PyAVReader,)}
)


def readers_for(choice: DecoderChoice) -> tuple[OpenReader, ...]:
    """Return the decoders to try in turn, each when the one before it is unfit for the video."""
    return _READERS[choice]
