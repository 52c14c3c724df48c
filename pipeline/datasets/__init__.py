"""The data sets that can be prepared, by name. One recipe is one module; add it here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diffvqa.pipeline.datasets import (
    biq2021,
    csv_labels,
    cvd2014,
    demo,
    folder,
    koniq_10k,
    konvid_1k,
    live_qualcomm,
    live_vqc,
    live_yt_gaming,
    lsvq,
    maxwell,
    youtube_ugc,
)
from diffvqa.pipeline.datasets.published_recipe import recipe_of
from diffvqa.pipeline.datasets.recipe import (
    ColumnNames,
    OnProgress,
    PreparedDataset,
    PrepareRequest,
    Progress,
    Recipe,
)
from diffvqa.pipeline.errors import DatasetError, did_you_mean

__all__ = [
    "RECIPES",
    "ColumnNames",
    "OnProgress",
    "PrepareRequest",
    "PreparedDataset",
    "Progress",
    "Recipe",
    "find_recipe",
]

_PUBLISHED = (
    konvid_1k.DATASET,
    live_vqc.DATASET,
    youtube_ugc.DATASET,
    lsvq.WHOLE,
    *lsvq.PARTS,
    cvd2014.DATASET,
    live_qualcomm.DATASET,
    maxwell.DATASET,
    live_yt_gaming.DATASET,
    biq2021.DATASET,
    koniq_10k.DATASET,
)
_OWN = (csv_labels.RECIPE, folder.RECIPE, demo.RECIPE)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (*map(recipe_of, _PUBLISHED), *_OWN)}
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        DatasetError: There is none; the message lists the names and suggests the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    recipes = f"The recipes are: {', '.join(sorted(RECIPES))}."
    raise DatasetError(f"There is no data-set recipe '{name}'.", f"{did_you_mean(name, RECIPES)} {recipes}".strip())
