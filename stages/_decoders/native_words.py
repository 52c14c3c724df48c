"""What native code writes to standard error, which is where decord's FFmpeg says that something is damaged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = 2
_LONGEST = 4000


class NativeWords:
    """What was written to standard error so far.

    Args:
        file: Descriptor of the file that takes the place of standard error.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._begin = os.fstat(file).st_size

    def so_far(self) -> str:
        """Return it, up to a length that says enough."""
        return os.pread(self._file, _LONGEST, self._begin).decode(errors="replace")


@contextmanager
def listening_to_standard_error() -> Iterator[NativeWords]:
    """Collect what this process writes to standard error within the block, and pass it on at its end.

    Where standard error is a file that can be read, as in a decode worker, it stays there: so that the words
    outlive the process when native code ends it.
    """
    try:
        os.pread(_STANDARD_ERROR, 0, 0)
    except OSError:
        with _into_a_file() as words:
            yield words
    else:
        yield NativeWords(_STANDARD_ERROR)


@contextmanager
def _into_a_file() -> Iterator[NativeWords]:
    before = os.dup(_STANDARD_ERROR)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), _STANDARD_ERROR)
            words = NativeWords(file.fileno())
            try:
                yield words
            finally:
                os.dup2(before, _STANDARD_ERROR)
                os.write(_STANDARD_ERROR, words.so_far().encode())
    finally:
        os.close(before)
