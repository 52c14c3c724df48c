"""What the kernel part of the regressor sees of a frame: statistics over places and crops, one vector of each kind."""

from __future__ import annotations

from collections.abc import Sequence
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

    def kinds(self, recipe: TrainRecipe, networks: Sequence[int] = ()) -> list[Tensor]:
        """Return what a recipe looks at, float32, the branches side by side.

        Args:
            recipe: Which branches, and whether the texture is read.
            networks: How many channels of F_MS each network has; one has all of them when empty.

        Returns:
            The maps of each network, and the texture where there is one and it is read.
        """
        views = ("resize", "crop") if recipe.branches == "both" else (recipe.branches,)
        of_views = [self._maps_by_network(view, networks) for view in views]
        kinds = [torch.cat(of_network, dim=-1).float() for of_network in zip(*of_views, strict=True)]
        if recipe.texture and self.textures:
            kinds.append(torch.cat([self.textures[view] for view in views], dim=-1).float())
        return kinds

    def _maps_by_network(self, view: str, networks: Sequence[int]) -> list[Tensor]:
        maps = self.maps[view]
        if not networks:
            return [maps]
        means, deviations = (torch.split(half, list(networks), dim=-1) for half in maps.chunk(2, dim=-1))
        return [torch.cat(both, dim=-1) for both in zip(means, deviations, strict=True)]


def _over_places(multiscale: Tensor) -> Tensor:
    """Return mean and standard deviation, (..., 2 Cm) float32, of (..., g g, Cm)."""
    std, mean = torch.std_mean(multiscale.float(), dim=-2, correction=0)
    return torch.cat([mean, std], dim=-1)
