"""Crops to learn from: which picture, where, at what scale and how degraded is a function of the step alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffvqa.stages._denoiser_training.degradations import degrade_at_random
from diffvqa.stages._denoiser_training.recipe import FitRecipe
from diffvqa.stages._seeding import derive_seed


class CropSampler:
    """Cuts the crops of any step, the same ones whoever asks and however often.

    Args:
        pictures: Each (H, W, 3) uint8 RGB, no side shorter than a crop.
        recipe: Size, scales, degradations and seed.
        purpose: Makes the crops of two samplers differ.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], recipe: FitRecipe, purpose: str = "train") -> None:
        self._pictures = pictures
        self._recipe = recipe
        self._purpose = purpose

    def batch(self, step: int, places: range) -> NDArray[np.uint8]:
        """Return some of a step's crops.

        Args:
            step: Of the training.
            places: Which of the step's ``batch_size`` crops, so that processes can share them out.

        Returns:
            (len(places), 3, S, S) uint8 RGB.
        """
        crops = [
            self._crop(np.random.default_rng(derive_seed(self._recipe.seed, self._purpose, step, i))) for i in places
        ]
        return np.stack(crops).transpose(0, 3, 1, 2)

    def _crop(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        recipe = self._recipe
        crop = scaled_crop(self._pictures[int(rng.integers(len(self._pictures)))], recipe.crop_size, recipe.scales, rng)
        if recipe.degradations and rng.random() < recipe.degraded:
            crop = degrade_at_random(crop, recipe.degradations, recipe.severity, rng)
        return crop[:, ::-1] if rng.random() < 0.5 else crop


def scaled_crop(
    picture: NDArray[np.uint8], size: int, scales: Sequence[float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut a square at random and shrink it to ``size``.

    Args:
        picture: (H, W, 3) uint8 RGB, no side shorter than ``size``.
        size: S in pixels.
        scales: To choose from, in (0, 1]; where the picture is too small for one, the nearest that fits it is taken.
        rng: What scale and place are drawn from.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    scale = scales[int(rng.integers(len(scales)))]
    extent = min(round(size / scale), *picture.shape[:2])
    top, left = (int(rng.integers(0, side - extent + 1)) for side in picture.shape[:2])
    square = picture[top : top + extent, left : left + extent]
    if extent == size:
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))
