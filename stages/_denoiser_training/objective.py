"""What is learned: to predict the noise, MSE(eps_theta(z_t, t, z_0), eps), weighted by the timestep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diffvqa.stages._denoiser_training.recipe import FitRecipe
from diffvqa.stages._diffusion.autoencoder import to_model_range
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._seeding import derive_seed


@dataclass(frozen=True)
class Denoising:
    """A network that learns to predict noise, within the model that it belongs to.

    Attributes:
        model: The whole model, on its device; what does not learn is frozen.
        network: The one of its networks that learns.
        predict: (network, z_t, t, z_0) -> predicted noise, all (B, C, h, w) but t (B,); or what :meth:`errors_of` of a
            subclass takes in place of the noise.
    """

    model: DiffusionModel
    network: nn.Module
    predict: Callable[[Any, Tensor, Tensor, Tensor], Any]

    def weighted_errors(self, network: nn.Module, crops: Tensor, drawn: Draws, recipe: FitRecipe) -> Tensor:
        """Return the loss of each crop, (B,) float32.

        Args:
            network: The one that learns, or another in its place: averaged, or wrapped for several processes.
            crops: (B, 3, S, S) uint8 RGB.
            drawn: The noise and timesteps.
            recipe: Says how timesteps are weighted.
        """
        with torch.no_grad():
            z_0 = self.model.autoencoder.encode(to_model_range(crops))
            z_t = self.model.scheduler.add_noise(z_0, drawn.noise, drawn.t)
        return self.errors_of(self.predict(network, z_t, drawn.t, z_0), crops, drawn, recipe)

    def errors_of(self, predicted: Any, crops: Tensor, drawn: Draws, recipe: FitRecipe) -> Tensor:  # noqa: ARG002  # for subclasses
        """Return the loss of each crop, (B,) float32, given what was predicted."""
        return self.noise_errors(predicted, drawn, recipe)

    def noise_errors(self, predicted: Tensor, drawn: Draws, recipe: FitRecipe) -> Tensor:
        """Return the weighted mean squared error of the noise that was predicted for each crop, (B,) float32."""
        errors = (predicted.float() - drawn.noise).square().mean(dim=(1, 2, 3))
        return errors * timestep_weights(self._signal_to_noise()[drawn.t], recipe)

    @property
    def timesteps(self) -> int:
        """Number of timesteps of the schedule."""
        return int(self.model.scheduler.config.num_train_timesteps)

    def latent_shape(self, crop_size: int) -> tuple[int, int, int]:
        """Return (C, h, w) of the latents of crops of ``crop_size`` pixels."""
        side = crop_size // self.model.autoencoder.block_size
        return (self.model.autoencoder.latent_channels, side, side)

    def _signal_to_noise(self) -> Tensor:
        alpha_bar: Tensor = self.model.scheduler.alphas_cumprod.to(self.model.null_prompt.device)
        return alpha_bar / (1 - alpha_bar)


@dataclass(frozen=True)
class Draws:
    """What chance adds to crops.

    Attributes:
        noise: (B, C, h, w) float32, eps.
        t: (B,) int64, timesteps.
    """

    noise: Tensor
    t: Tensor

    def at(self, places: range, device: torch.device) -> Draws:
        """Return the draws of some of the crops, on ``device``."""
        chosen = slice(places.start, places.stop, places.step)
        return Draws(self.noise[chosen].to(device), self.t[chosen].to(device))


def draw(seed: int, step: int, count: int, shape: tuple[int, int, int], timesteps: int, *, at_zero: int = 0) -> Draws:
    """Draw the noise and timesteps of a training step; the same whenever they are asked for.

    Args:
        seed: Of the recipe.
        step: Of the training.
        count: Crops of the step (B).
        shape: (C, h, w) of a latent.
        timesteps: Of the schedule.
        at_zero: How many of the crops have t = 0 whatever is drawn.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", step))
    noise = torch.randn((count, *shape), generator=generator)
    t = torch.randint(0, timesteps, (count,), generator=generator)
    t[:at_zero] = 0
    return Draws(noise, t)


def spread(seed: int, count: int, shape: tuple[int, int, int], timesteps: int) -> Draws:
    """Return fixed noise, and timesteps spread evenly over the schedule: what a held-out loss is measured with."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "held-out noise"))
    centres = (torch.arange(count) + 0.5) / count * timesteps
    return Draws(torch.randn((count, *shape), generator=generator), centres.long())


def timestep_weights(signal_to_noise: Tensor, recipe: FitRecipe) -> Tensor:
    """Return the weight of the squared error at each signal-to-noise ratio, abar / (1 - abar)."""
    match recipe.loss_weight:
        case "epsilon":
            return torch.ones_like(signal_to_noise)
        case "min_snr":
            return (recipe.snr_cap / signal_to_noise).clamp(max=1.0)
        case "sqrt_snr":
            return signal_to_noise.rsqrt()
        case "x0":
            return signal_to_noise.reciprocal()


def unet_denoising(model: DiffusionModel) -> Denoising:
    """Return the training of the U-Net alone, without its Controller."""

    def predict(network: Any, z_t: Tensor, t: Tensor, _: Tensor) -> Tensor:
        predicted: Tensor = network(z_t, t, model.null_prompt.expand(len(z_t), -1, -1), return_dict=False)[0]
        return predicted

    return Denoising(model, model.unet, predict)


def controller_denoising(model: DiffusionModel) -> Denoising:
    """Return the training of the Controller; the U-Net is frozen."""
    model.unet.requires_grad_(False).eval()

    def predict(network: Any, z_t: Tensor, t: Tensor, z_0: Tensor) -> Tensor:
        return replace(model, controller=network).predict_noise(z_t, t, z_0)

    return Denoising(model, model.controller, predict)
