"""The networks an extraction runs, loaded as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffvqa.pipeline._allocator import keep_freed_memory
from diffvqa.pipeline._errors import ConfigError

if TYPE_CHECKING:
    import torch

    from diffvqa.cache._fingerprint import Fingerprint
    from diffvqa.pipeline._config import Runtime
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._view_extractor import ViewExtractor

_SOFTWARE = ("diffvqa", "torch", "diffusers", "decord", "av", "zarr", "numpy")


@dataclass(frozen=True)
class Backbone:
    """A loaded model, ready to extract.

    Attributes:
        extractor: Its networks on their device, and how views go through them.
        fingerprint: Of the features it makes.
    """

    extractor: ViewExtractor
    fingerprint: Fingerprint


def load_backbone(recipe: ExtractRecipe, runtime: Runtime) -> Backbone:
    """Load the recipe's model onto the runtime's device; this process then computes with the runtime's threads.

    Raises:
        ModelFolderError: There is no such model, or it cannot be loaded.
        BackboneError: The recipe does not fit the model.
        ConfigError: The device is not there.
    """
    from diffvqa.stages._backbones.placement import Placement
    from diffvqa.stages._backbones.registry import load_backbone as load_networks
    from diffvqa.stages._extraction import extraction_fingerprint
    from diffvqa.stages._view_extractor import ViewExtractor

    use_threads(runtime)
    device = choose_device(runtime.device)
    placement = Placement(device, channels_last=runtime.channels_last, compiled=runtime.compile)
    networks = load_networks(recipe, placement)
    extractor = ViewExtractor(
        networks,
        device=device,
        precision=recipe.precision,
        batch_size=None if runtime.batch_size == "auto" else runtime.batch_size,
        side_by_side=not runtime.compile,
    )
    return Backbone(extractor, extraction_fingerprint(recipe, networks.fingerprint))


def use_threads(runtime: Runtime) -> None:
    """Have this process compute with as many threads as the runtime says, and keep memory that it frees."""
    import torch

    keep_freed_memory()
    if runtime.threads:
        torch.set_num_threads(runtime.threads)


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
    from diffvqa.stages._software import installed_versions

    return installed_versions(_SOFTWARE)
