"""From a backbone's name in the recipe to networks that are ready to extract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffvqa.stages._backbones.combined import CombinedBackbone, NamedBackbone
from diffvqa.stages._backbones.diffusion import DiffusionBackbone
from diffvqa.stages._backbones.efficientnet import EFFICIENTNET_LITE0, EfficientNetBackbone
from diffvqa.stages._backbones.interface import FeatureBackbone
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.random_weights import hash_weights, with_random_weights
from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._errors import BackboneError
from diffvqa.stages._extract_recipe import ExtractRecipe

_COMBINES = "+"
_RANDOM = "-random"


def load_backbone(recipe: ExtractRecipe, placement: Placement) -> FeatureBackbone:
    """Load the networks that ``recipe.model`` names, ready to extract.

    The name is that of a shipped model, the path of a model folder, or ``efficientnet-lite0``. With ``-random`` after
    it, a diffusion model has random weights; several joined by ``+`` give the features of all. A folder of exactly that
    name goes before all this.

    Args:
        recipe: Of the extraction.
        placement: Where and how the networks run.

    Raises:
        ModelFolderError: There is no such model, or it cannot be loaded.
        BackboneError: The recipe does not fit the model, or a combination names one twice.
    """
    if _COMBINES not in recipe.model or Path(recipe.model).is_dir():
        backbone = _load_one(recipe.model, recipe, placement)
    else:
        backbone = _load_combination(recipe, placement)
    if recipe.view_size % backbone.view_multiple:
        raise BackboneError(
            f"extract.view_size = {recipe.view_size} does not fit the model '{recipe.model}'.",
            f"Use a multiple of {backbone.view_multiple}.",
        )
    return backbone


def own_folders(model: str) -> dict[str, Path]:
    """Return the model folders that a recipe names by their path, which means nothing on another machine.

    Args:
        model: ``model`` of a recipe.

    Returns:
        Each as it is named -> where it lies.
    """
    parts = [model] if Path(model).is_dir() else [part.strip() for part in model.split(_COMBINES)]
    named = (part if Path(part).is_dir() else part.removesuffix(_RANDOM) for part in parts)
    return {name: Path(name) for name in named if Path(name).is_dir()}


def with_folders(recipe: ExtractRecipe, folders: Mapping[str, Path]) -> ExtractRecipe:
    """Return the recipe with model folders where they lie on this machine.

    Args:
        recipe: Of the extraction.
        folders: Each as the recipe names it -> where it lies here, under the same last name.
    """
    parts = [recipe.model] if recipe.model in folders else [part.strip() for part in recipe.model.split(_COMBINES)]
    here = []
    for part in parts:
        name = part if part in folders else part.removesuffix(_RANDOM)
        here.append(str(folders.get(name, name)) + part.removeprefix(name))
    return recipe.model_copy(update={"model": _COMBINES.join(here)})


def _load_combination(recipe: ExtractRecipe, placement: Placement) -> CombinedBackbone:
    models = [part.strip() for part in recipe.model.split(_COMBINES)]
    names = [Path(model).name for model in models]
    if not all(names) or len(set(names)) < len(names):
        raise BackboneError(
            f"extract.model = '{recipe.model}' is no combination of different models.",
            "Join different names by +, such as nano+nano-random.",
        )
    parts = zip(names, models, strict=True)
    return CombinedBackbone([NamedBackbone(name, _load_one(model, recipe, placement)) for name, model in parts])


def _load_one(model: str, recipe: ExtractRecipe, placement: Placement) -> FeatureBackbone:
    if model == EFFICIENTNET_LITE0 and not Path(model).is_dir():
        return EfficientNetBackbone(recipe, placement)
    is_random = model.endswith(_RANDOM) and not Path(model).is_dir()
    folder = locate_model_folder(model.removesuffix(_RANDOM) if is_random else model)
    if is_random:
        untrained = with_random_weights(load_model_folder(folder, start_controller=True))
        return DiffusionBackbone(untrained, recipe, placement, {f"diffusion{_RANDOM}": hash_weights(untrained)})
    return DiffusionBackbone(load_model_folder(folder), recipe, placement, {"diffusion": hash_model_folder(folder)})
