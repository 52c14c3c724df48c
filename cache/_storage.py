"""Where a cache lies: a folder of this machine or a place in an object store, used by all the rest in one way.

A file is there whole or not at all: locally it is written beside its place, synchronised and renamed; in an object
store a PUT is atomic already. A folder is not: locally it is renamed into place, in an object store its files appear
one by one. Whoever reads therefore waits for a mark, a file that is written after the folder it speaks of.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from typing_extensions import override
from zarr.storage import FsspecStore, LocalStore

from diffvqa.cache._atomic import (
    TEMPORARY_PREFIX,
    atomic_output,
    atomic_write_bytes,
    reporting_output_errors,
    synchronise_folder,
    synchronise_tree,
)
from diffvqa.cache._errors import CacheUnreachableError, DiffVQAError, OutputError
from diffvqa.cache._open_file import OpenFile

if TYPE_CHECKING:
    from zarr.abc.store import Store

UNFINISHED_PREFIX = ".unfinished-"
_FILES_KEPT_OPEN = 64
_PUBLISH_LOCK = ".publish.lock"


@dataclass(frozen=True)
class Listed:
    """Something in a storage.

    Attributes:
        name: Its path from the storage's root, parts separated by slashes.
        size: Bytes; 0 for a folder, -1 where a server does not tell before it is read.
        is_folder: Whether it is one.
        mtime_ns: Time of modification, nanoseconds since the epoch; -1 where it is not told.
        etag: What an object store or a web server names this content by; empty where it is not told.
    """

    name: str
    size: int
    is_folder: bool
    mtime_ns: int = -1
    etag: str = ""

    @property
    def base(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]


class Storage(ABC):
    """Files by name, below a root.

    Every method raises ``OutputError`` when something cannot be written and ``CacheUnreachableError`` when something
    cannot be read, each naming the file; a file that is not there is a ``FileNotFoundError``.
    """

    @abstractmethod
    def describe(self, name: str = "") -> str:
        """Return the path or URL of a file, as users know it."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's content."""

    @abstractmethod
    def read_into(self, name: str, start: int, buffer: NDArray[np.uint8]) -> int:
        """Fill ``buffer`` with a file's bytes from ``start`` on; return how many there were, fewer where it ends."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step, replacing an older one; when this returns it is durable."""

    @abstractmethod
    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine to ``name`` in one step, without holding it in memory."""

    def download(self, name: str, path: Path) -> Listed:
        """Copy a file to a new one of this machine, without holding it in memory; return what was known of it."""
        found = self.look_up(name)
        if found is None:
            raise FileNotFoundError(self.describe(name))
        return self._fetch(name, found, path)

    @abstractmethod
    def _fetch(self, name: str, found: Listed, path: Path) -> Listed:
        """Copy a file that was found to a new one of this machine, and return what is known of it then."""

    @abstractmethod
    def look_up(self, name: str) -> Listed | None:
        """Return what is known of a file without reading it; None when there is none."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one of that name; return whether it was written."""

    @abstractmethod
    def entries(self, folder: str = "") -> list[Listed]:
        """Return what lies directly in a folder, by name; nothing when there is no such folder."""

    @abstractmethod
    def walk(self, folder: str) -> list[Listed]:
        """Return all files in a folder and below it, by name."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing when there is none."""

    @abstractmethod
    def new_folder(self, name: str) -> AbstractContextManager[Storage]:
        """Give an empty storage that becomes the folder ``name`` when the block ends well, and vanishes otherwise."""

    @abstractmethod
    def zarr_store(self, folder: str = "") -> Store:
        """Return Zarr's own store over a folder, for reading."""

    @abstractmethod
    def publishing(self) -> AbstractContextManager[object]:
        """Keep other processes from publishing or taking over during the block, as far as the storage can."""


def open_storage(location: Path | str) -> Storage:
    """Return the storage at a path, or at a URL such as ``s3://bucket/features`` or ``memory://features``.

    Credentials and endpoint are found as the protocol's own library finds them; for ``s3://`` that is botocore's way:
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, or its files.

    Raises:
        CacheUnreachableError: Nothing here speaks the URL's protocol.
    """
    if isinstance(location, Path) or "://" not in location:
        return LocalStorage(Path(location))
    if location.startswith("file://"):
        return LocalStorage(Path(location.removeprefix("file://")))
    return ObjectStorage.at(location)


class LocalStorage(Storage):
    """A folder of this machine.

    Args:
        root: The folder; it is made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened = lru_cache(_FILES_KEPT_OPEN)(OpenFile)

    @override
    def describe(self, name: str = "") -> str:
        return str(self.root / name)

    @override
    def read(self, name: str) -> bytes:
        path = self.root / name
        with _reporting_unreachable(str(path), OSError):
            return path.read_bytes()

    @override
    def read_into(self, name: str, start: int, buffer: NDArray[np.uint8]) -> int:
        path = self.root / name
        with _reporting_unreachable(str(path), OSError):
            return self._opened(path).read_into(start, buffer)

    @override
    def write(self, name: str, content: bytes) -> None:
        atomic_write_bytes(self.root / name, content)

    @override
    def upload(self, path: Path, name: str) -> None:
        with atomic_output(self.root / name) as unfinished, reporting_output_errors(self.root / name):
            shutil.copyfile(path, unfinished)

    @override
    def _fetch(self, name: str, found: Listed, path: Path) -> Listed:
        with _reporting_unreachable(str(self.root / name), OSError):
            shutil.copyfile(self.root / name, path)
        return found

    @override
    def look_up(self, name: str) -> Listed | None:
        path = self.root / name
        with suppress(FileNotFoundError), _reporting_unreachable(str(path), OSError):
            return None if path.is_dir() else _listed(name, path)
        return None

    @override
    def create(self, name: str, content: bytes) -> bool:
        with self.publishing():
            if (self.root / name).exists():
                return False
            self.write(name, content)
        return True

    @override
    def entries(self, folder: str = "") -> list[Listed]:
        prefix = f"{folder}/" if folder else ""
        path = self.root / folder
        with suppress(FileNotFoundError), _reporting_unreachable(str(path), OSError):
            if not path.is_dir():
                return []
            with os.scandir(path) as found:
                return sorted((_listed(prefix + entry.name, entry) for entry in found), key=_name)
        return []

    @override
    def walk(self, folder: str) -> list[Listed]:
        found = (path for path in (self.root / folder).rglob("*") if not path.is_dir())
        return sorted((_listed(path.relative_to(self.root).as_posix(), path) for path in found), key=_name)

    @override
    def delete(self, name: str) -> None:
        path = self.root / name
        with reporting_output_errors(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @override
    @contextmanager
    def new_folder(self, name: str) -> Iterator[Storage]:
        final = self.root / name
        unfinished = final.with_name(f"{UNFINISHED_PREFIX}{final.name}")
        try:
            with reporting_output_errors(final):
                unfinished.mkdir(parents=True)
                yield _UnfinishedFolder(unfinished)
                synchronise_tree(unfinished)
                unfinished.rename(final)
                synchronise_folder(final.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @override
    def zarr_store(self, folder: str = "") -> Store:
        return LocalStore(self.root / folder, read_only=True)

    @override
    @contextmanager
    def publishing(self) -> Iterator[None]:
        with reporting_output_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / _PUBLISH_LOCK, poll_interval=0.01)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class _UnfinishedFolder(LocalStorage):
    """A folder that nobody reads before it is renamed: its files are synchronised together, then."""

    @override
    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        with reporting_output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class ObjectStorage(Storage):
    """A place that fsspec reaches, such as a prefix of an S3 bucket.

    Args:
        url: Of the place, as the user gave it.
        files: fsspec's file system for it.
        path: The place within them.
        failures: What the file system raises when it cannot be reached.
    """

    def __init__(self, url: str, files: Any, path: str, failures: tuple[type[Exception], ...]) -> None:
        self._url = url.rstrip("/")
        self._files = files
        self._path = path.rstrip("/")
        self._failures = failures

    @classmethod
    def at(cls, url: str) -> ObjectStorage:
        """Return the storage at a URL.

        Raises:
            CacheUnreachableError: Nothing here speaks its protocol.
        """
        from fsspec import url_to_fs

        try:
            # Listings are never remembered: other processes write too.
            files, path = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            hint = "Install it with: pip install 'diffvqa[s3]'." if url.startswith("s3") else "Check the URL."
            raise CacheUnreachableError(f"{url} cannot be opened: {_first_line(error)}.", hint) from error
        return cls(url, files, path, (OSError, *_protocol_failures(url)))

    @override
    def describe(self, name: str = "") -> str:
        return f"{self._url}/{name}" if name else self._url

    @override
    def read(self, name: str) -> bytes:
        with self._reporting_unreachable(name):
            return bytes(self._files.cat_file(self._at(name)))

    @override
    def read_into(self, name: str, start: int, buffer: NDArray[np.uint8]) -> int:
        with self._reporting_unreachable(name):
            content = self._files.cat_file(self._at(name), start=start, end=start + len(buffer))
        buffer[: len(content)] = np.frombuffer(content, np.uint8)
        return len(content)

    @override
    def write(self, name: str, content: bytes) -> None:
        with self._reporting_output_errors(name):
            self._files.pipe_file(self._at(name), content)

    @override
    def upload(self, path: Path, name: str) -> None:
        with self._reporting_output_errors(name):
            self._files.put_file(str(path), self._at(name))

    @override
    def _fetch(self, name: str, found: Listed, path: Path) -> Listed:
        with self._reporting_unreachable(name):
            self._files.get_file(self._at(name), str(path))
        received = path.stat().st_size
        if found.size < 0:
            return replace(found, size=received)
        if received != found.size:
            raise _unreachable(self.describe(name), OSError(f"{received} of {found.size} bytes came"))
        return found

    @override
    def look_up(self, name: str) -> Listed | None:
        with suppress(FileNotFoundError), self._reporting_unreachable(name):
            entry = self._files.info(self._at(name))
            return None if entry["type"] == "directory" else self._listed(entry)
        return None

    @override
    def create(self, name: str, content: bytes) -> bool:
        try:
            self._files.pipe_file(self._at(name), content, mode="create")
        except FileExistsError:
            return False
        except self._failures as error:
            if "PreconditionFailed" in str(error) or "At least one of the pre-conditions" in str(error):
                return False
            raise _unwritable(self.describe(name), error) from error
        return True

    @override
    def entries(self, folder: str = "") -> list[Listed]:
        with suppress(FileNotFoundError), self._reporting_unreachable(folder):
            found = self._files.ls(self._at(folder), detail=True)
            return sorted((self._listed(entry) for entry in found if self._relative(entry) != folder), key=_name)
        return []

    @override
    def walk(self, folder: str) -> list[Listed]:
        with suppress(FileNotFoundError), self._reporting_unreachable(folder):
            return sorted(map(self._listed, self._files.find(self._at(folder), detail=True).values()), key=_name)
        return []

    @override
    def delete(self, name: str) -> None:
        try:
            self._files.rm(self._at(name), recursive=True)
        except FileNotFoundError:
            return
        except self._failures as error:
            raise _unwritable(self.describe(name), error) from error

    @override
    @contextmanager
    def new_folder(self, name: str) -> Iterator[Storage]:
        folder = ObjectStorage(self.describe(name), self._files, self._at(name), self._failures)
        try:
            with self._reporting_output_errors(name):
                yield folder
        except BaseException:
            self.delete(name)
            raise

    @override
    def zarr_store(self, folder: str = "") -> Store:
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

        # Zarr awaits its file system in a loop of its own; the wrapper lets it share this one and its connections.
        return FsspecStore(
            AsyncFileSystemWrapper(self._files, asynchronous=True), path=self._at(folder), read_only=True
        )

    @override
    def publishing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def _reporting_unreachable(self, name: str) -> AbstractContextManager[None]:
        return _reporting_unreachable(self.describe(name), *self._failures)

    @contextmanager
    def _reporting_output_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except DiffVQAError:
            raise
        except self._failures as error:
            raise _unwritable(self.describe(name), error) from error

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _relative(self, entry: dict[str, Any]) -> str:
        return str(entry["name"]).rstrip("/").removeprefix(self._path).lstrip("/")

    def _listed(self, entry: dict[str, Any]) -> Listed:
        if entry["type"] == "directory":
            return Listed(self._relative(entry), 0, is_folder=True)
        etag = entry.get("ETag") or entry.get("etag") or ""
        return Listed(self._relative(entry), _size(entry), False, _modified(entry), str(etag).strip('"'))


def is_ours(listed: Listed) -> bool:
    """Whether something in a storage's root is there only for the time of writing."""
    return listed.base.startswith((".lock", _PUBLISH_LOCK, TEMPORARY_PREFIX))


def _listed(name: str, path: Path | os.DirEntry[str]) -> Listed:
    if path.is_dir():
        return Listed(name, 0, is_folder=True)
    stat = path.stat()
    return Listed(name, stat.st_size, is_folder=False, mtime_ns=stat.st_mtime_ns)


def _size(entry: dict[str, Any]) -> int:
    return -1 if entry.get("size") is None else int(entry["size"])


def _modified(entry: dict[str, Any]) -> int:
    """Return when a file was modified, in nanoseconds since the epoch; -1 where fsspec does not tell."""
    told = entry.get("LastModified") or entry.get("mtime") or entry.get("created")
    if isinstance(told, datetime):
        return round(told.timestamp() * 1e6) * 1000
    return round(told * 1e6) * 1000 if isinstance(told, int | float) else -1


def _name(listed: Listed) -> str:
    return listed.name


def _protocol_failures(url: str) -> tuple[type[Exception], ...]:
    """S3 errors that are no ``OSError``: no credentials, no connection."""
    if not url.startswith(("s3:", "s3a:")):
        return ()
    from botocore.exceptions import BotoCoreError

    return (BotoCoreError,)


@contextmanager
def _reporting_unreachable(where: str, *failures: type[Exception]) -> Iterator[None]:
    """Turn failures to read into ``CacheUnreachableError``; that there is no such file is let through as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except failures as error:
        raise _unreachable(where, error) from error


def _unreachable(where: str, error: Exception) -> CacheUnreachableError:
    return CacheUnreachableError(
        f"{where} cannot be read: {_first_line(error)}.", "Check the address, the permissions and the connection."
    )


def _unwritable(where: str, error: Exception) -> OutputError:
    return OutputError(
        f"{where} cannot be written to: {_first_line(error)}.", "Check the address, the permissions and the connection."
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
