"""The data sets that can be prepared, by name. One recipe is one module; add it here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diffvqa.pipeline.datasets import csv_labels, demo, folder
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

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (csv_labels.RECIPE, demo.RECIPE, folder.RECIPE)}
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
