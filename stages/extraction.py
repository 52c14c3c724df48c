"""Stage one for a list of videos: decode ahead in other processes, run the model here, yield features or failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache.fingerprint import Fingerprint
from diffvqa.cache.schema import SCHEMA_VERSION, ArraySpec
from diffvqa.stages.decode_pool import DecodePool
from diffvqa.stages.decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages.extract_recipe import ExtractRecipe
from diffvqa.stages.failures import FailureReason
from diffvqa.stages.feature_extractor import DiffusionFeatureExtractor
from diffvqa.stages.seeding import derive_seed


@dataclass(frozen=True)
class ExtractedVideo:
    """One video's features.

    Attributes:
        decoded: What was sampled of it.
        arrays: Name -> (F, ...) array, as :func:`array_specs` describes them.
    """

    decoded: DecodedVideo
    arrays: dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Content:
    """What is kept of every view; the features are bounded only by their type."""

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    description: str
    dtype: str = "float16"
    value_range: tuple[float, float] | None = None


def extraction_fingerprint(recipe: ExtractRecipe, weights_hash: str) -> Fingerprint:
    """Return the fingerprint of the features that a recipe and a model folder make.

    The model counts by its weights, not by its name or path.

    Args:
        recipe: Of the extraction.
        weights_hash: From ``hash_model_folder``.
    """
    settings = recipe.model_dump(exclude={"model"})
    return Fingerprint({"schema_version": SCHEMA_VERSION, "model_weights": weights_hash, **settings})


def array_specs(recipe: ExtractRecipe, extractor: DiffusionFeatureExtractor) -> tuple[ArraySpec, ...]:
    """Return the arrays that stage one makes of a video, with names, dimensions, dtypes and value ranges."""
    size = recipe.view_size
    contents = (
        _Content("latent", ("channel", "y", "x"), extractor.latent_shape, "reconstructed latent, mostly -1 to 1"),
        _Content(
            "multiscale",
            ("channel", "grid_y", "grid_x"),
            extractor.multiscale_shape,
            "maps of the U-Net's up-blocks at the last step: mean (and std) of each grid cell",
        ),
        _Content("frames", ("y", "x", "rgb"), (size, size, 3), "pixels of the view, RGB", "uint8", (0, 255)),
    )
    branches = (("resize", (), ()), ("crop", ("crop",), (recipe.crops,)))
    return tuple(
        ArraySpec(
            name=f"{branch}/{content.name}",
            dimensions=("frame", *extra_dimension, *content.dimensions),
            shape=(recipe.frames, *extra_extent, *content.shape),
            dtype=content.dtype,
            unit="1",
            value_range=content.value_range,
            description=content.description,
        )
        for branch, extra_dimension, extra_extent in branches
        for content in contents
    )


def extract_videos(
    sources: Iterable[VideoSource], extractor: DiffusionFeatureExtractor, pool: DecodePool, recipe: ExtractRecipe
) -> Iterator[ExtractedVideo | FailedVideo]:
    """Yield every video's features or failure, in the order given.

    Args:
        sources: The videos.
        extractor: The model, on its device.
        pool: Decodes ahead while the model computes.
        recipe: The recipe of both.
    """
    for decoded in pool.run(sources):
        yield decoded if isinstance(decoded, FailedVideo) else extract_decoded(decoded, extractor, recipe)


def extract_decoded(
    decoded: DecodedVideo, extractor: DiffusionFeatureExtractor, recipe: ExtractRecipe
) -> ExtractedVideo | FailedVideo:
    """Return the features of a decoded video, or a failure when the model's output is not finite."""
    seeded_by, frames, crops = decoded.source.seeded_by(), len(decoded.resize), decoded.crop.shape[1]
    flat_crops = decoded.crop.reshape(-1, *decoded.crop.shape[2:])
    views = np.concatenate([decoded.resize, flat_crops])
    names = [(f, "resize") for f in range(frames)] + [(f, f"crop-{k}") for f in range(frames) for k in range(crops)]
    seeds = [derive_seed(recipe.seed, seeded_by, frame, view) for frame, view in names]
    features = extractor(views, seeds)
    if not (np.isfinite(features.latent).all() and np.isfinite(features.multiscale).all()):
        return FailedVideo(decoded.source, FailureReason.NOT_FINITE, "the model's features overflow float16")
    arrays: dict[str, NDArray[np.generic]] = {"resize/frames": decoded.resize, "crop/frames": decoded.crop}
    for name, array in (("latent", features.latent), ("multiscale", features.multiscale)):
        arrays[f"resize/{name}"] = array[:frames]
        arrays[f"crop/{name}"] = array[frames:].reshape(frames, crops, *array.shape[1:])
    return ExtractedVideo(decoded, arrays)
