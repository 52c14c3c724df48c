"""What the kernel part of the regressor sees of a frame: statistics over places and crops, one vector of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import BranchInput

# Counted in full, what is left out of a training is predicted less well: it takes from what the maps say.
_FLAT_TEXTURE_SHARE = 0.5


def kind_shares(recipe: TrainRecipe, networks: Sequence[NetworkMaps], *, has_texture: bool) -> tuple[float, ...]:
    """Return how much each of the kinds that :meth:`FrameSummary.kinds` gives is to count, beside the others.

    Args:
        recipe: As there.
        networks: As there.
        has_texture: Whether there is one.
    """
    of_maps = sum(network.kinds for network in networks) if networks else 1
    if not (recipe.texture and has_texture):
        return (1.0,) * of_maps
    return (1.0,) * (of_maps + 1) + (_FLAT_TEXTURE_SHARE,) * recipe.flat_texture


@dataclass(frozen=True)
class FrameSummary:
    """Statistics of each frame's features; ``...`` is (F,) for a video and (B, F) for a batch.

    Attributes:
        maps: By view, (..., 2 Cm) float16: mean and standard deviation (population) of F_MS over the grid, averaged
            over the crops.
        textures: By view, (..., D) float16: the latent's texture averaged over the crops; empty without a latent.
        flat_textures: Likewise, that of the flatter half, less that of the whole.
    """

    maps: dict[str, Tensor]
    textures: dict[str, Tensor]
    flat_textures: dict[str, Tensor]

    @classmethod
    def of(cls, resize: BranchInput, crop: BranchInput) -> FrameSummary:
        """Summarise the resized view, with leading axes (..., F), and the crops, (..., K, F)."""
        crop_axis = -3  # of (..., K, F, values)
        maps = {
            "resize": _over_places(resize.multiscale),
            "crop": _over_places(crop.multiscale).mean(crop_axis),
        }
        maps = {view: statistics.half() for view, statistics in maps.items()}

        def over_crops(of_resize: Tensor | None, of_crops: Tensor | None) -> dict[str, Tensor]:
            if of_resize is None or of_crops is None:
                return {}
            return {"resize": of_resize, "crop": of_crops.float().mean(crop_axis).half()}

        return cls(maps, over_crops(resize.texture, crop.texture), over_crops(resize.flat_texture, crop.flat_texture))

    @property
    def nbytes(self) -> int:
        """Bytes it takes up in memory."""
        every = (self.maps, self.textures, self.flat_textures)
        return sum(part.nbytes for parts in every for part in parts.values())

    def kinds(self, recipe: TrainRecipe, networks: Sequence[NetworkMaps] = ()) -> list[Tensor]:
        """Return what a recipe looks at, float32, the branches side by side.

        Args:
            recipe: Which branches, and whether the texture is read.
            networks: What of F_MS each network has; one has all of it when empty.

        Returns:
            For each network the means of its means and, where it is known which those are, everything else: its
            deviations and how means and deviations vary over the grid. Then the texture and that of what is flat, where
            there are any and they are read.
        """
        views = ("resize", "crop") if recipe.branches == "both" else (recipe.branches,)
        of_views = [list(self._kinds_of_maps(view, networks)) for view in views]
        kinds = [torch.cat(of_kind, dim=-1).float() for of_kind in zip(*of_views, strict=True)]
        if recipe.texture and self.textures:
            kinds.append(torch.cat([self.textures[view] for view in views], dim=-1).float())
            if recipe.flat_texture:
                kinds.append(torch.cat([self.flat_textures[view] for view in views], dim=-1).float())
        return kinds

    def _kinds_of_maps(self, view: str, networks: Sequence[NetworkMaps]) -> Iterator[Tensor]:
        maps = self.maps[view]
        channels = maps.shape[-1] // 2
        known = networks or [NetworkMaps(channels, 0)]
        widths = [network.channels for network in known]
        averages, spreads = (torch.split(half, widths, dim=-1) for half in torch.split(maps, channels, dim=-1))
        for network, over_places, varying in zip(known, averages, spreads, strict=True):
            if network.deviations:
                means, deviations = torch.split(over_places, [network.means, network.deviations], dim=-1)
                yield means
                yield torch.cat([deviations, varying], dim=-1)
            else:
                yield torch.cat([over_places, varying], dim=-1)


def _over_places(multiscale: Tensor) -> Tensor:
    """Return mean and standard deviation, (..., 2 Cm) float32, of (..., g g, Cm)."""
    std, mean = torch.std_mean(multiscale.float(), dim=-2, correction=0)
    return torch.cat([mean, std], dim=-1)
