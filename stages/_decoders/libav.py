"""The little that all uses of PyAV share: opening local files alone, and hearing what libav has to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.error
import av.logging

# What a file may refer to is read from this machine alone: a playlist must not reach into a network.
_LOCAL_FILES_ONLY = {"protocol_whitelist": "file"}


class LibavWords:
    """The errors libav complained of so far."""

    def __init__(self, logs: list[tuple[int, str, str]]) -> None:
        self._logs = logs
        self._heard = 0

    def new(self) -> str:
        """Return what was said since the last call, one complaint a line."""
        fresh, self._heard = self._logs[self._heard :], len(self._logs)
        return "\n".join(f"[{origin}] {message.strip()}" for _, origin, message in fresh)


@contextmanager
def listening_to_libav() -> Iterator[LibavWords]:
    """Collect the errors that libav logs within the block, instead of having them printed."""
    level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logs:
            yield LibavWords(logs)
    finally:
        av.logging.set_skip_repeated(skip_repeated)
        av.logging.set_level(level)


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file.

    Raises:
        av.error.FFmpegError: It cannot be read.
    """
    try:
        return av.open(f"file:{path}", options=_LOCAL_FILES_ONLY)
    except av.error.MemoryError as error:  # a header takes little memory: one that asks for much is damaged
        raise av.error.InvalidDataError(error.errno or 0, error.strerror or "", str(path)) from error


def in_words(error: av.error.FFmpegError) -> str:
    """Return libav's name of an error, such as ``Invalid data found when processing input``."""
    return error.strerror or type(error).__name__
