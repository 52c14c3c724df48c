"""How this process gets memory from the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors, and return whether that could be set.

    Every step of a training frees some 40 MB of tensors and asks for as much again. By default glibc returns it to the
    system between the two, and to get it back, page by page, took a quarter of the step's time. Elsewhere than on Linux
    with glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGE))
