"""The recipe ``folder``: every video below a directory or a URL, without labels."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from diffvqa.cache._source_files import is_url
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Manifest, ManifestRow, MatchReport
from diffvqa.pipeline.datasets._recipe import OnProgress, PreparedDataset, PrepareRequest, Progress, Recipe

VIDEO_SUFFIXES = frozenset(
    {
        ".3gp",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
        ".y4m",
    }
)
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def find_videos(directory: Path, suffixes: Collection[str] = VIDEO_SUFFIXES, *, hint: str = "") -> list[Path]:
    """Return every video file in ``directory`` and below, sorted by path.

    A video is known by its suffix, in any case. Hidden files and folders (``.name``) are left out, linked folders are
    entered.

    Args:
        directory: Where to look.
        suffixes: What the names of the files wanted end in, lower-case with the dot.
        hint: What to do when there is none.

    Raises:
        DatasetError: There is no such directory, it cannot be read, or it holds no video.
    """
    if not directory.is_dir():
        raise DatasetError(f"{directory} is no directory.", "Give the folder that holds the videos.")
    videos: list[Path] = []
    entered: set[Path] = set()
    for parent, folders, files in os.walk(directory, onerror=_raise_unreadable, followlinks=True):
        real_parent = Path(parent).resolve()
        if real_parent in entered:  # a link back up would lead round for ever
            folders.clear()
            continue
        entered.add(real_parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        videos += (Path(parent, name) for name in files if _is_wanted(name, suffixes))
    if not videos:
        raise _nothing_there(directory, suffixes, hint)
    return sorted(videos, key=lambda path: path.relative_to(directory).as_posix())


def videos_below(place: Path | str, suffixes: Collection[str] = VIDEO_SUFFIXES, *, hint: str = "") -> list[str]:
    """Return the path from ``place`` of every video in a directory or at a URL, and below, sorted.

    Args:
        place: Where to look.
        suffixes: As for :func:`find_videos`.
        hint: What to do when there is none.

    Raises:
        DatasetError: There is no such place, it cannot be read, or it holds no video.
        CacheUnreachableError: The URL's server does not answer.
    """
    if not is_url(place):
        directory = Path(place)
        return [path.relative_to(directory).as_posix() for path in find_videos(directory, suffixes, hint=hint)]
    from diffvqa.cache._storage import open_storage

    below = (listed.name for listed in open_storage(place).walk(""))
    names = sorted(
        name for name in below if all(_is_visible(part) for part in name.split("/")) and _ends(name, suffixes)
    )
    if not names:
        raise _nothing_there(place, suffixes, hint)
    return names


def location_below(place: Path | str, name: str) -> str:
    """Return the path or URL of the file that :func:`videos_below` found under a name."""
    return f"{str(place).rstrip('/')}/{name}" if is_url(place) else str(Path(place) / name)


def prepare_folder(request: PrepareRequest, on_progress: OnProgress) -> PreparedDataset:
    """List the videos of ``request.videos``; each is its own group, its id its path from there, extension and all.

    Raises:
        DatasetError: No directory or URL was given, or it holds no video.
    """
    place = request.require_videos()
    ids = videos_below(place)
    rows = tuple(ManifestRow(each, location_below(place, each), score=None, group=each) for each in ids)
    on_progress(Progress(len(ids), len(ids), str(place)))
    return PreparedDataset(Manifest(request.name, rows), MatchReport(videos_without_label=tuple(ids)))


RECIPE = Recipe(
    name="folder",
    summary="Every video below a directory or URL, without scores.",
    needs_videos=True,
    needs_labels=False,
    prepare=prepare_folder,
)


def _is_wanted(name: str, suffixes: Collection[str]) -> bool:
    return _is_visible(name) and _ends(name, suffixes)


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _ends(name: str, suffixes: Collection[str]) -> bool:
    return Path(name).suffix.lower() in suffixes


def _nothing_there(place: Path | str, suffixes: Collection[str], hint: str) -> DatasetError:
    endings = f"They end in one of: {' '.join(sorted(suffixes))}."
    return DatasetError(f"{place} holds no {_kind(suffixes)}.", f"{endings} {hint}".strip())


def _kind(suffixes: Collection[str]) -> str:
    return "photograph" if ".jpg" in suffixes else "video"


def _raise_unreadable(error: OSError) -> None:
    raise DatasetError(
        f"{error.filename} cannot be read: {error.strerror or error}.", "Change its permissions, or move it away."
    ) from error
