"""What a step of a fit is given, and what its networks are measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffvqa.stages._denoiser_training.crops import CropSampler
from diffvqa.stages._denoiser_training.objective import Denoising, Draws, draw, spread
from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import FitRecipe


@dataclass(frozen=True)
class Part:
    """Some of a step's crops.

    Attributes:
        places: Which of the batch.
        crops: (len(places), 3, S, S) uint8 RGB.
    """

    places: range
    crops: NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """What one process needs for one step.

    Attributes:
        parts: Its crops.
        drawn: Noise and timesteps of the whole batch.
    """

    parts: tuple[Part, ...]
    drawn: Draws


class StepSource:
    """Prepares steps, in any order and any thread.

    Args:
        denoising: What is trained.
        pictures: To cut crops from.
        recipe: Of the training.
        parts: Which of a batch's crops this process takes, and in which parts.
    """

    def __init__(
        self, denoising: Denoising, pictures: TrainingPictures, recipe: FitRecipe, parts: Sequence[range]
    ) -> None:
        self._sampler = CropSampler(pictures.train, recipe)
        self._recipe = recipe
        self._parts = parts
        self._shape = denoising.latent_shape(recipe.crop_size)
        self._timesteps = denoising.timesteps

    def prepare(self, step: int) -> Step:
        """Return what this process needs for a step, always the same."""
        recipe = self._recipe
        drawn = draw(recipe.seed, step, recipe.batch_size, self._shape, self._timesteps, at_zero=recipe.crops_at_zero)
        return Step(tuple(Part(places, self._sampler.batch(step, places)) for places in self._parts), drawn)


class HeldOutLoss:
    """Measures a network on fixed crops of held-out pictures, with fixed noise and timesteps.

    Args:
        denoising: What is trained.
        pictures: Whose held-out part is taken.
        recipe: Of the training.
        device: Where to compute.
    """

    def __init__(
        self, denoising: Denoising, pictures: TrainingPictures, recipe: FitRecipe, device: torch.device
    ) -> None:
        self._denoising, self._recipe, self._device = denoising, recipe, device
        self._crops = CropSampler(pictures.held_out, recipe, "held-out").batch(0, range(recipe.held_out))
        shape = denoising.latent_shape(recipe.crop_size)
        self._drawn = spread(recipe.seed, recipe.held_out, shape, denoising.timesteps)

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> float:
        """Return the mean loss of a network, which is put into evaluation mode."""
        network.eval()
        errors = []
        for start in range(0, len(self._crops), self._recipe.batch_size):
            places = range(start, min(start + self._recipe.batch_size, len(self._crops)))
            crops = torch.from_numpy(self._crops[places.start : places.stop]).to(self._device)
            drawn = self._drawn.at(places, self._device)
            errors.append(self._denoising.weighted_errors(network, crops, drawn, self._recipe))
        return float(torch.cat(errors).mean())
