"""The diffusion model an extraction runs, loaded as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffvqa.pipeline.allocator import keep_freed_memory
from diffvqa.pipeline.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from diffvqa.cache.fingerprint import Fingerprint
    from diffvqa.pipeline.config import Runtime
    from diffvqa.stages.extract_recipe import ExtractRecipe
    from diffvqa.stages.feature_extractor import DiffusionFeatureExtractor

_SOFTWARE = ("diffvqa", "torch", "diffusers", "decord", "av", "zarr", "numpy")


@dataclass(frozen=True)
class Backbone:
    """A loaded model, ready to extract.

    Attributes:
        extractor: The model on its device.
        fingerprint: Of the features it makes.
    """

    extractor: DiffusionFeatureExtractor
    fingerprint: Fingerprint


def load_backbone(recipe: ExtractRecipe, runtime: Runtime) -> Backbone:
    """Load the recipe's model folder onto the runtime's device.

    Raises:
        ModelFolderError: There is no such model, or it cannot be loaded.
        ConfigError: The view size does not fit the model, or the device is not there.
    """
    from diffvqa.stages.diffusion.model_folder import hash_model_folder, load_model_folder, locate_model_folder
    from diffvqa.stages.extraction import extraction_fingerprint
    from diffvqa.stages.feature_extractor import DiffusionFeatureExtractor

    keep_freed_memory()
    folder = locate_model_folder(recipe.model)
    fingerprint = extraction_fingerprint(recipe, hash_model_folder(folder))
    model = load_model_folder(folder)
    if recipe.view_size % model.frame_multiple:
        raise ConfigError(
            f"extract.view_size = {recipe.view_size} does not fit the model '{recipe.model}'.",
            f"Use a multiple of {model.frame_multiple}.",
        )
    extractor = DiffusionFeatureExtractor(
        model, recipe, device=choose_device(runtime.device), batch_size=runtime.batch_size
    )
    return Backbone(extractor, fingerprint)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA where there is one.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"There is no device '{name}' on this machine.", "Use --device cpu or --device auto.")
    return device


def software_versions() -> dict[str, str]:
    """Return name -> version of what features are made with."""
    from diffvqa.stages.software import installed_versions

    return installed_versions(_SOFTWARE)
