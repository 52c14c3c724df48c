"""How well a model reconstructs held-out pictures: as they are, and with each degradation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages._denoiser_training.degradations import DEGRADATIONS
from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import AdaptRecipe
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.reconstruction import reconstruct_frames
from diffvqa.stages._picture_metrics import peak_signal_to_noise_ratio, structural_similarity
from diffvqa.stages._seeding import derive_seed

AS_THEY_ARE = "as they are"
_SEVERITY = 0.5


@dataclass(frozen=True)
class ReconstructionQuality:
    """How alike pictures and their reconstructions are, means over the pictures.

    Attributes:
        psnr: In dB.
        ssim: Of the luma, in [-1, 1].
    """

    psnr: float
    ssim: float


@dataclass(frozen=True)
class Reconstructions:
    """Pictures of one kind and what a model makes of them.

    Attributes:
        shown: (B, S, S, 3) uint8 RGB, what the model was shown.
        reconstructed: Likewise.
    """

    shown: NDArray[np.uint8]
    reconstructed: NDArray[np.uint8]

    def quality(self) -> ReconstructionQuality:
        """Return the mean quality."""
        pairs = list(zip(self.reconstructed, self.shown, strict=True))
        return ReconstructionQuality(
            psnr=float(np.mean([peak_signal_to_noise_ratio(made, shown) for made, shown in pairs])),
            ssim=float(np.mean([structural_similarity(made, shown) for made, shown in pairs])),
        )


def held_out_views(pictures: TrainingPictures, recipe: AdaptRecipe) -> dict[str, NDArray[np.uint8]]:
    """Return kind -> (B, S, S, 3) uint8: the middles of held-out pictures as they are, and degraded in each known way.

    Args:
        pictures: Whose held-out part is taken.
        recipe: Says how many, and how large.
    """
    size = recipe.crop_size
    middles = [_middle(picture, size) for picture in pictures.held_out[: recipe.reconstructed]]
    views = {AS_THEY_ARE: np.stack(middles)}
    for name, degradation in DEGRADATIONS.items():
        chance = [np.random.default_rng(derive_seed("held-out", name, number)) for number in range(len(middles))]
        views[name] = np.stack(
            [degradation(middle, _SEVERITY, rng) for middle, rng in zip(middles, chance, strict=True)]
        )
    return views


def reconstruct_views(
    model: DiffusionModel, views: Mapping[str, NDArray[np.uint8]], recipe: AdaptRecipe
) -> dict[str, Reconstructions]:
    """Return what a model makes of each kind of view, from the same noise for the same picture.

    Args:
        model: On its device; its networks are put into evaluation mode.
        views: From :func:`held_out_views`.
        recipe: Says in how many steps, and from where.
    """
    model.unet.eval()
    model.controller.eval()
    return {
        kind: Reconstructions(
            shown,
            reconstruct_frames(
                model,
                shown,
                [derive_seed("held-out", number) for number in range(len(shown))],
                steps=recipe.reconstruct_steps,
                start_timestep=recipe.reconstruct_start,
            ),
        )
        for kind, shown in views.items()
    }


def qualities(reconstructions: Mapping[str, Reconstructions]) -> dict[str, ReconstructionQuality]:
    """Return the mean quality of each kind."""
    return {kind: each.quality() for kind, each in reconstructions.items()}


def _middle(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    top, left = ((side - size) // 2 for side in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def grid_rows(reconstructions: Mapping[str, Reconstructions]) -> Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return (shown, reconstructed) of the first picture of each kind: the rows of a picture grid."""
    return [(each.shown[0], each.reconstructed[0]) for each in reconstructions.values()]
