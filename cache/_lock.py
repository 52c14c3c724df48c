"""One writer at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from diffvqa.cache._atomic import reporting_output_errors
from diffvqa.cache._errors import DiffVQAError


@contextmanager
def held_exclusively(lock_file: Path, busy: DiffVQAError) -> Iterator[None]:
    """Hold a lock for the length of the block, without waiting for it.

    Args:
        lock_file: The lock; its folder is made if absent, and it stays there afterwards.
        busy: Raised when another process holds it.

    Raises:
        OutputError: The folder cannot be made or written to.
    """
    with reporting_output_errors(lock_file.parent):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise busy from error
    try:
        yield
    finally:
        lock.release()
