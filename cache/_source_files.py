"""The files that features are made from: on this machine, or at a URL that fsspec knows, such as in an S3 bucket.

A file at a URL is known by its size and by what its server says of it; to be read it is fetched. Credentials, endpoints
and retries are those of :mod:`diffvqa.cache._storage`.
"""

from __future__ import annotations

import errno
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.cache._errors import CacheUnreachableError, OutputError

if TYPE_CHECKING:
    from diffvqa.cache._storage import Listed, Storage

_PARALLEL_REQUESTS = 16
_LISTED_RATHER_THAN_ASKED_FOR = 16
_CHUNK = 8 * 2**20
_LOCAL_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_url(location: Path | str) -> bool:
    """Whether a file has to be fetched."""
    return isinstance(location, str) and "://" in location and not location.startswith("file://")


def file_location(location: Path | str) -> Path | str:
    """Return a URL as it is, and anything else as a path of this machine."""
    if is_url(location):
        return location
    return Path(location.removeprefix("file://") if isinstance(location, str) else location)


def look_up(url: str) -> Listed | None:
    """Return what a server says of a file, None when there is none.

    Raises:
        CacheUnreachableError: It does not answer.
    """
    storage, name = _split(url)
    return storage.look_up(name)


def look_up_all(urls: Iterable[str]) -> dict[str, Listed | None]:
    """Return what servers say of many files; folders of which many are asked for are listed once.

    Raises:
        CacheUnreachableError: One of them does not answer.
    """
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for url in dict.fromkeys(urls):
        by_folder[url.rpartition("/")[0]].append(url)
    found: dict[str, Listed | None] = {}
    for folder, members in by_folder.items():
        if len(members) >= _LISTED_RATHER_THAN_ASKED_FOR:
            listed = {one.base: one for one in _split(members[0])[0].entries() if not one.is_folder}
            known = {url: listed.get(url.removeprefix(f"{folder}/")) for url in members}
            found |= {url: one for url, one in known.items() if one is not None and (one.mtime_ns >= 0 or one.etag)}
    left = [url for members in by_folder.values() for url in members if url not in found]
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="look-up") as threads:
        return found | dict(zip(left, threads.map(look_up, left), strict=True))


def fetch(url: str, path: Path) -> tuple[Listed, str]:
    """Copy a file at a URL to a new file of this machine.

    Returns:
        What its server said of it, and the SHA-256 (hex) of its content.

    Raises:
        FileNotFoundError: There is no such file.
        CacheUnreachableError: It cannot be had, after the retries that its protocol's library makes.
        OutputError: There is no room for it here.
    """
    storage, name = _split(url)
    try:
        found = storage.download(name, path)
        with path.open("rb") as file:
            return found, hashlib.file_digest(file, "sha256").hexdigest()
    except CacheUnreachableError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _LOCAL_TROUBLE:
            hint = "Make room there, or set TMPDIR to a folder that has some."
            raise OutputError(f"{path.parent} cannot be written to: {error.__cause__.strerror}.", hint) from error
        raise


def digest(url: str) -> str:
    """Return the SHA-256 (hex) of the content of a file at a URL, reading it through.

    Raises:
        FileNotFoundError: There is no such file.
        CacheUnreachableError: It cannot be read.
    """
    import numpy as np

    storage, name = _split(url)
    sha256, buffer, start = hashlib.sha256(), np.empty(_CHUNK, np.uint8), 0
    found = storage.look_up(name)
    if found is None:
        raise FileNotFoundError(url)
    while start < found.size:
        count = storage.read_into(name, start, buffer[: min(_CHUNK, found.size - start)])
        if not count:
            break
        sha256.update(buffer[:count].data)
        start += count
    return sha256.hexdigest()


def _split(url: str) -> tuple[Storage, str]:
    from diffvqa.cache._storage import open_storage

    folder, _, name = url.rpartition("/")
    return open_storage(folder), name
