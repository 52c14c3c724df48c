"""Writing files so that they are either there and whole, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffvqa.cache._errors import OutputError

TEMPORARY_PREFIX = ".tmp-"


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, newlines as they are, replacing an older file in one step.

    Args:
        path: The file; its folder is made if absent.
        text: The whole content.

    Raises:
        OutputError: The folder is not writable, the disk is full, or ``text`` cannot be encoded.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            f"{path} cannot be written: {error.object[error.start : error.end]!r} is no Unicode text.",
            "Rename the files whose names are not valid UTF-8.",
        ) from error
    atomic_write_bytes(path, content)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write ``content``, replacing an older file in one step.

    Raises:
        OutputError: The folder is not writable, or the disk is full.
    """
    with atomic_output(path) as temporary, reporting_output_errors(path):
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends well and vanishes when it does not.

    The temporary file lies in the same folder and has the same suffix; the block creates it. It is synchronised to the
    disk before it is renamed, so not even a power cut leaves half a file under the final name.

    Args:
        path: The file to write or replace; its folder is made if absent.

    Yields:
        A path that no other process uses.

    Raises:
        OutputError: The folder cannot be made or written to, the disk is full, or ``path`` is a folder.
    """
    with reporting_output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        with reporting_output_errors(path):
            _synchronise(temporary, os.O_RDWR)
            temporary.replace(path)
            synchronise_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``folder`` when the block ends well.

    Between the two renames that this takes, a former folder lies beside the new one, hidden.

    Args:
        folder: The folder to write or replace; its parent is made if absent.

    Yields:
        A folder beside it that no other process uses.

    Raises:
        OutputError: It cannot be made, written to the disk or renamed.
    """
    unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        with reporting_output_errors(folder):
            unfinished.mkdir(parents=True)
        yield unfinished
        with reporting_output_errors(folder):
            synchronise_tree(unfinished)
            _replace_folder(folder, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _replace_folder(folder: Path, finished: Path) -> None:
    former = folder.with_name(f"{finished.name}-former")
    if folder.exists():
        folder.rename(former)
    try:
        finished.rename(folder)
    except BaseException:
        if former.exists():
            former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that killed processes left in ``folder`` and below; return how many there were.

    Call it only while no other process writes there.

    Raises:
        OutputError: One cannot be removed.
    """
    leftovers = [path for path in folder.rglob(f"{TEMPORARY_PREFIX}*") if path.is_file()]
    for leftover in leftovers:
        with reporting_output_errors(leftover):
            leftover.unlink(missing_ok=True)
    return len(leftovers)


@contextlib.contextmanager
def reporting_output_errors(path: Path) -> Iterator[None]:
    """Turn any ``OSError`` of the block into an error that names ``path`` and says what to do.

    Raises:
        OutputError: The block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written to: {error.strerror or error}.", _hint(error, path)) from error


def synchronise_tree(folder: Path) -> None:
    """Bring ``folder`` and all that is in it to the disk."""
    for parent, _, files in os.walk(folder, topdown=False):  # rglob would remember every path
        for name in files:
            _synchronise(Path(parent, name), os.O_RDWR)
        synchronise_folder(Path(parent))


def synchronise_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk, where the system can."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _synchronise(folder, os.O_RDONLY)


def _synchronise(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hint(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free some disk space and run it again."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"Choose a folder you may write to, or change the permissions of {path.parent}."
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
            return "A file stands where a folder is needed, or the other way round; move it away."
        case _:
            return "Choose another output folder."
