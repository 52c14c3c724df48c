"""The data sets that can be prepared, by name. One recipe is one module; add it here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diffvqa.pipeline._errors import DatasetError, did_you_mean
from diffvqa.pipeline.datasets import _biq2021 as biq2021
from diffvqa.pipeline.datasets import _csv_labels as csv_labels
from diffvqa.pipeline.datasets import _cvd2014 as cvd2014
from diffvqa.pipeline.datasets import _demo as demo
from diffvqa.pipeline.datasets import _folder as folder
from diffvqa.pipeline.datasets import _koniq_10k as koniq_10k
from diffvqa.pipeline.datasets import _konvid_1k as konvid_1k
from diffvqa.pipeline.datasets import _live_qualcomm as live_qualcomm
from diffvqa.pipeline.datasets import _live_vqc as live_vqc
from diffvqa.pipeline.datasets import _live_yt_gaming as live_yt_gaming
from diffvqa.pipeline.datasets import _lsvq as lsvq
from diffvqa.pipeline.datasets import _maxwell as maxwell
from diffvqa.pipeline.datasets import _youtube_ugc as youtube_ugc
from diffvqa.pipeline.datasets._published_recipe import recipe_of
from diffvqa.pipeline.datasets._recipe import (
    ColumnNames,
    OnProgress,
    PreparedDataset,
    PrepareRequest,
    Progress,
    Recipe,
)

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
