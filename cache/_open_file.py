"""A file that is kept open for reading, so that the system notices that it is read in order, and reads ahead."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class OpenFile:
    """A file, open for reading by any number of threads and forked processes; it is closed with the last reference.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read_into(self, start: int, buffer: NDArray[np.uint8]) -> int:
        """Fill ``buffer`` with the file's bytes from ``start`` on; return how many there were.

        Raises:
            OSError: It cannot be read.
        """
        filled = 0
        while filled < len(buffer) and (there := self._read_once(start + filled, buffer[filled:])):
            filled += there
        return filled

    def _read_once(self, start: int, buffer: NDArray[np.uint8]) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [buffer.data], start)
        with self._lock:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            content = os.read(self._descriptor, len(buffer))
        buffer[: len(content)] = np.frombuffer(content, np.uint8)
        return len(content)
