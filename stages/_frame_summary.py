"""What the kernel part of the regressor sees of a frame: statistics over places and crops, one vector of each kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import BranchInput


@dataclass(frozen=True)
class FrameSummary:
    """Statistics of each frame's features; ``...`` is (F,) for a video and (B, F) for a batch.

    Attributes:
        maps: By view, (..., 2 Cm) float16: mean and standard deviation (population) of F_MS over the grid, averaged
            over the crops.
        textures: By view, (..., D) float16: the latent's texture averaged over the crops; empty without a latent.
    """

    maps: dict[str, Tensor]
    textures: dict[str, Tensor]

    @classmethod
    def of(cls, resize: BranchInput, crop: BranchInput) -> FrameSummary:
        """Summarise the resized view, with leading axes (..., F), and the crops, (..., K, F)."""
        crop_axis = -3  # of (..., K, F, values)
        maps = {
            "resize": _over_places(resize.multiscale),
            "crop": _over_places(crop.multiscale).mean(crop_axis),
        }
        maps = {view: statistics.half() for view, statistics in maps.items()}
        if resize.texture is None or crop.texture is None:
            return cls(maps, {})
        return cls(maps, {"resize": resize.texture, "crop": crop.texture.float().mean(crop_axis).half()})

    @property
    def nbytes(self) -> int:
        """Bytes it takes up in memory."""
        return sum(part.nbytes for parts in (self.maps, self.textures) for part in parts.values())

    def kinds(self, recipe: TrainRecipe) -> list[Tensor]:
        """Return what a recipe looks at, float32, the branches side by side: maps, and texture where it reads any."""
        views = ("resize", "crop") if recipe.branches == "both" else (recipe.branches,)
        kinds = [self.maps, self.textures] if recipe.texture and self.textures else [self.maps]
        return [torch.cat([kind[view] for view in views], dim=-1).float() for kind in kinds]


def _over_places(multiscale: Tensor) -> Tensor:
    """Return mean and standard deviation, (..., 2 Cm) float32, of (..., g g, Cm)."""
    std, mean = torch.std_mean(multiscale.float(), dim=-2, correction=0)
    return torch.cat([mean, std], dim=-1)
