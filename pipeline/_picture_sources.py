"""Photographs and videos to train a diffusion model on, found in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline.datasets._folder import PICTURE_SUFFIXES, VIDEO_SUFFIXES, find_videos

if TYPE_CHECKING:
    from diffvqa.stages._denoiser_training.pictures import PictureSource


def find_pictures(places: Sequence[Path]) -> list[PictureSource]:
    """Return every photograph and video in folders and below, and files that are given themselves.

    Args:
        places: Folders and files.

    Raises:
        DatasetError: A place is not there, or holds neither photographs nor videos.
    """
    from diffvqa.stages._denoiser_training.pictures import PictureSource

    found: list[PictureSource] = []
    for place in places:
        prefix = f"{place.name}/" if len(places) > 1 else ""
        if place.is_file():
            found.append(PictureSource(place.name, place))
        elif place.is_dir():
            paths = find_videos(place, PICTURE_SUFFIXES | VIDEO_SUFFIXES)
            found += [PictureSource(prefix + path.relative_to(place).as_posix(), path) for path in paths]
        else:
            raise DatasetError(f"{place} is not there.", "Give folders or files of photographs or videos.")
    return found
