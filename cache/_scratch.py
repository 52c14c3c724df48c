"""Room on this machine's own disk for what is needed for a while, and nothing of it left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffvqa.cache._processes import process_exists

_PREFIX = "diffvqa-scratch-"


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Give a fresh folder that is gone after the block, or, if the process is killed, after the next such block here.

    Args:
        purpose: A word that ends up in its name.
    """
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{purpose}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the scratch folders of this user's processes that are not there any more."""
    for folder in _folders():
        if not process_exists(_process_of(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def remove_all(purpose: str, *, patience: float = 20.0) -> None:
    """Remove the scratch folders for one purpose, whose processes are ending.

    Args:
        purpose: As it was given to :func:`scratch_folder`.
        patience: Seconds to wait for the processes.
    """
    ending = [folder for folder in _folders() if f"-{purpose}-" in folder.name]
    deadline = time.monotonic() + patience
    while any(process_exists(_process_of(folder)) for folder in ending) and time.monotonic() < deadline:
        time.sleep(0.1)
    for folder in ending:
        shutil.rmtree(folder, ignore_errors=True)


def _folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{_PREFIX}[0-9]*-*"))


def _process_of(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX).split("-")[0])
