"""Which videos the arguments of ``diffvqa score`` stand for: files, folders, URLs, patterns and lists."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from diffvqa.cache._source_files import file_location, is_url
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline.datasets._folder import VIDEO_SUFFIXES, find_videos, location_below, videos_below

_LIST_SUFFIX = ".txt"
_STANDARD_INPUT = "-"


def videos_of(arguments: Sequence[str]) -> list[Path | str]:
    """Return the videos that the arguments stand for, each once, in the order given.

    A file that is not there comes back all the same, to become a failure with a reason.

    Args:
        arguments: Video files, folders of them, URLs of either, patterns such as ``clips/**/*.mp4``, lists (``.txt``,
            one path or URL a line), or ``-`` for a list from standard input. A URL without the ending of a video is a
            folder.

    Raises:
        DatasetError: A folder, a pattern or a list holds no video, or a list cannot be read.
        CacheUnreachableError: The server of a folder's URL does not answer.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _videos_of(argument)))


def _videos_of(argument: str) -> Sequence[Path | str]:
    if is_url(argument):
        return _at_url(argument)
    path = Path(file_location(argument))
    if argument == _STANDARD_INPUT:
        return _listed(sys.stdin.read(), "standard input")
    if path.is_dir():
        return find_videos(path)
    if path.suffix.lower() == _LIST_SUFFIX:
        try:
            return _listed(path.read_text(encoding="utf-8"), argument)
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"Cannot read the list {argument}: {error}.", "Give a text file, a path or URL a line."
            ) from error
    if not path.exists() and glob.has_magic(argument):
        return _matching(argument)
    return [path]


def _at_url(url: str) -> Sequence[str]:
    if Path(url.partition("?")[0]).suffix.lower() in VIDEO_SUFFIXES:
        return [url]
    return [location_below(url, name) for name in videos_below(url)]


def _listed(text: str, where: str) -> list[Path | str]:
    listed = [file_location(line.strip()) for line in text.splitlines() if line.strip()]
    if not listed:
        raise DatasetError(f"{where} lists no videos.", "Give one path or URL a line.")
    return listed


def _matching(pattern: str) -> list[Path]:
    matching = [Path(found) for found in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # Path.glob takes no absolute pattern
    videos = [video for path in matching for video in (find_videos(path) if path.is_dir() else [path])]
    if not videos:
        raise DatasetError(f"No file matches '{pattern}'.", "** stands for any folders, * for any part of a name.")
    return videos
