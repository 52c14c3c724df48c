"""The data sets that can be prepared, by name. One recipe is one module; add it here."""

from __future__ import annotations

import difflib
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
from diffvqa.pipeline.errors import DatasetError

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
    nearest = difflib.get_close_matches(name, RECIPES, n=1)
    suggestion = f" Did you mean '{nearest[0]}'?" if nearest else ""
    raise DatasetError(
        f"There is no data-set recipe '{name}'.{suggestion}", f"The recipes are: {', '.join(sorted(RECIPES))}."
    )
