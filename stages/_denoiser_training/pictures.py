"""Pictures to train on, in memory: regions of photographs and of videos' frames, through the project's decoders."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, decode_video
from diffvqa.stages._denoiser_training.recipe import FitRecipe
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._sampling import Sampling
from diffvqa.stages._seeding import derive_seed

_MOST_HELD_OUT = 0.1


@dataclass(frozen=True)
class PictureSource:
    """A photograph or a video to take pictures from.

    Attributes:
        name: What its seeds come from: its path below the folder that was given.
        path: Its file.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Decoding:
    """How decode workers run; changes no picture.

    Attributes:
        workers: Processes.
        timeout: Seconds that one file may take.
        memory: MiB that a process may have.
    """

    workers: int = 1
    timeout: float = 120.0
    memory: int | None = None


@dataclass(frozen=True)
class TrainingPictures:
    """What a network is trained on, and what it is measured on; no file is in both.

    Attributes:
        train: Each (H, W, 3) uint8 RGB, no side shorter than a crop.
        held_out: Likewise, one of each file that was held out.
        failed: Files that could not be used.
    """

    train: tuple[NDArray[np.uint8], ...]
    held_out: tuple[NDArray[np.uint8], ...]
    failed: tuple[FailedVideo, ...]

    def digest(self) -> str:
        """Return a checksum of all pictures, in their order."""
        checksum = 0
        for picture in (*self.train, *self.held_out):
            checksum = zlib.crc32(picture.data, zlib.crc32(repr(picture.shape).encode(), checksum))
        return f"{len(self.train)}+{len(self.held_out)} pictures, crc32 {checksum:08x}"


def load_pictures(
    sources: Sequence[PictureSource],
    recipe: FitRecipe,
    decoding: Decoding,
    on_file: Callable[[bool], None] = lambda _failed: None,
) -> TrainingPictures:
    """Decode every source and keep what the recipe says of it.

    Held out are the files whose names have the smallest hashes, at most a tenth: they stay the same whatever the order,
    and mostly so when files are added.

    Args:
        sources: Photographs and videos.
        recipe: Of the training.
        decoding: How the workers run.
        on_file: Called after each file with whether it failed.

    Raises:
        TrainingDataError: Too few pictures are large enough to crop.
    """
    held_out_names = held_out_of([source.name for source in sources], recipe)
    train: list[NDArray[np.uint8]] = []
    held_out: list[NDArray[np.uint8]] = []
    failed: list[FailedVideo] = []
    settings = ExtractRecipe(
        frames=recipe.video_frames,
        view_size=max(recipe.region, 16),
        crops=recipe.regions,
        good_frames=1 / recipe.video_frames,
        seed=recipe.seed,
    )
    files = [VideoSource(source.name, source.path) for source in sources]
    with DecodePool(
        settings, workers=decoding.workers, timeout=decoding.timeout, memory=decoding.memory, decode=decode_regions
    ) as pool:
        for decoded in pool.run(files):
            if isinstance(decoded, FailedVideo):
                failed.append(decoded)
            else:
                regions = decoded.crop.reshape(-1, *decoded.crop.shape[2:])
                pictures = list(regions) if min(regions.shape[1:3]) >= recipe.crop_size else []
                is_held_out = decoded.source.video_id in held_out_names
                held_out += pictures[:1] if is_held_out else []
                train += [] if is_held_out else pictures
            on_file(isinstance(decoded, FailedVideo))
    if not train or not held_out:
        raise TrainingDataError(
            f"Of {len(sources)} files, {len(failed)} cannot be read, and too few of the others are at least "
            f"{recipe.crop_size} pixels wide and high.",
            "Give at least two pictures of that size, or a smaller crop_size.",
        )
    return TrainingPictures(tuple(train), tuple(held_out), tuple(failed))


def held_out_of(names: Sequence[str], recipe: FitRecipe) -> frozenset[str]:
    """Return which files are kept to measure on, by the hashes of their names."""
    count = max(1, min(recipe.held_out, round(_MOST_HELD_OUT * len(names))))
    return frozenset(sorted(names, key=lambda name: derive_seed("held-out", name))[:count])


def decode_regions(source: VideoSource, sampling: Sampling) -> DecodedVideo:
    """Decode a file to its crops alone, once each, without the margin that a frame smaller than a crop gets.

    Run in a decode worker, so that no more than that comes out of it.

    Raises:
        VideoUnusableError: The file cannot be used.
        MemoryError: There is not enough memory for it.
    """
    decoded = decode_video(source, sampling)
    _, first_of_each = np.unique(decoded.crop_positions, axis=0, return_index=True)
    kept = np.sort(first_of_each)
    return replace(
        decoded,
        resize=decoded.resize[:, :0, :0],
        crop=np.ascontiguousarray(decoded.crop[:, kept, : decoded.height, : decoded.width]),
        crop_positions=decoded.crop_positions[kept],
    )
