"""Stage one for units of videos: decode ahead in other processes, run the model here, yield features or failures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec
from diffvqa.stages._backbones.interface import FeatureBackbone, level_slices
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._view_batches import ExtractedVideo, ViewBatches
from diffvqa.stages._view_extractor import ViewExtractor


@dataclass(frozen=True)
class _Content:
    """What is kept of every view; the features are bounded only by their type."""

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    description: str
    dtype: str = "float16"
    value_range: tuple[float, float] | None = None
    levels: Mapping[str, tuple[int, int]] | None = None


def extraction_fingerprint(recipe: ExtractRecipe, weights: Mapping[str, str]) -> Fingerprint:
    """Return the fingerprint of the features that a recipe and a backbone make.

    The model counts by its kind and its weights, not by its name or path.

    Args:
        recipe: Of the extraction.
        weights: ``fingerprint`` of the backbone.
    """
    settings = recipe.model_dump(exclude={"model"})
    models = {f"model.{kind}": digest for kind, digest in weights.items()}
    return Fingerprint({"schema_version": SCHEMA_VERSION, **models, **settings})


def array_specs(recipe: ExtractRecipe, backbone: FeatureBackbone) -> tuple[ArraySpec, ...]:
    """Return the arrays that stage one makes of a video, with names, dimensions, dtypes and value ranges."""
    contents = _contents(recipe, backbone)
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
            levels=dict(content.levels or {}),
        )
        for branch, extra_dimension, extra_extent in branches
        for content in contents
    )


def _contents(recipe: ExtractRecipe, backbone: FeatureBackbone) -> list[_Content]:
    size, grid, levels = recipe.view_size, recipe.grid, level_slices(backbone.levels)
    contents = []
    if backbone.latent_shape is not None:
        what = "reconstructed latent, mostly -1 to 1"
        contents.append(_Content("latent", ("channel", "y", "x"), backbone.latent_shape, what))
    channels = sum(level.channels for level in backbone.levels)
    what = "feature maps, the mean (and the standard deviation) of each grid cell; levels name the channels"
    shape = (channels, grid, grid)
    contents.append(_Content("multiscale", ("channel", "grid_y", "grid_x"), shape, what, levels=levels))
    what = "pixels of the view, RGB"
    contents.append(_Content("frames", ("y", "x", "rgb"), (size, size, 3), what, "uint8", (0, 255)))
    return contents


class Decoding(Protocol):
    """Whatever decodes videos: a :class:`~diffvqa.stages._decode_pool.DecodePool`, or processes on other machines."""

    def run(self, sources: Iterable[VideoSource]) -> Iterator[DecodedVideo | FailedVideo]:
        """Yield every video decoded or failed, in the order given."""
        ...


def extract_units(
    units: Iterable[Sequence[VideoSource]], extractor: ViewExtractor, decoding: Decoding, recipe: ExtractRecipe
) -> Iterator[ExtractedVideo | FailedVideo]:
    """Yield the features or the failure of every video of every unit, in the order given.

    The videos of a unit share the batches that their views go through; those of two units never do, so that what a
    unit gives, bit for bit, does not depend on the other units. Units are taken as decoding comes to them.

    Args:
        units: Videos that belong together: those of a shard, or one alone whose features are to depend on nothing else.
        extractor: The model, on its device.
        decoding: Decodes ahead while the model computes, over the borders of units.
        recipe: The recipe of both.
    """
    to_decode, to_extract = itertools.tee(units)
    decoded = decoding.run(itertools.chain.from_iterable(to_decode))
    for unit in to_extract:
        yield from extract_unit(itertools.islice(decoded, len(unit)), extractor, recipe)


def extract_unit(
    decoded: Iterable[DecodedVideo | FailedVideo], extractor: ViewExtractor, recipe: ExtractRecipe
) -> Iterator[ExtractedVideo | FailedVideo]:
    """Yield the features or the failure of the videos of one unit, in the order given, as :func:`extract_units` does.

    Args:
        decoded: The unit's videos; asked for one by one, as batches have use for them.
        extractor: The model, on its device.
        recipe: Of the extraction.
    """
    batches = ViewBatches(extractor, recipe)
    for video in decoded:
        batches.add(video)
        yield from batches.finished()
    yield from batches.rest()
