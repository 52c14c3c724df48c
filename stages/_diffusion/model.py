"""A latent diffusion model with its Controller, and the prediction that the two make together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from diffvqa.stages._diffusion.autoencoder import Autoencoder, PixelUnshuffleAutoencoder, StableDiffusionAutoencoder
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.null_prompt import NULL_PROMPT_FILE, write_null_prompt
from diffvqa.stages._diffusion.weights import write_network


@dataclass(frozen=True)
class DiffusionModel:
    """A latent diffusion model with its Controller.

    Attributes:
        unet: The denoising network, epsilon prediction.
        controller: The Controller that conditions it on z_0.
        autoencoder: Between frames and latents.
        scheduler: The noise schedule (alpha-bar) and the DDPM step.
        null_prompt: (1, tokens, width) float32, the text condition, always that of the empty prompt.
    """

    unet: UNet2DConditionModel
    controller: Controller
    autoencoder: Autoencoder
    scheduler: DDPMScheduler
    null_prompt: Tensor

    @property
    def frame_multiple(self) -> int:
        """A frame's sides must be multiples of this many pixels, so that every level of the U-Net fits."""
        levels = len(self.unet.config.block_out_channels)
        return int(self.autoencoder.block_size * 2 ** (levels - 1))

    def predict_noise(self, z_t: Tensor, t: Tensor, z_0: Tensor) -> Tensor:
        """Return the controlled prediction eps_theta(z_t, t, z_0).

        Args:
            z_t: (B, C, h, w) float, the noised latents.
            t: (B,) int64, timesteps in [0, 1000).
            z_0: (B, C, h, w) float, the clean latents that the Controller sees.

        Returns:
            (B, C, h, w) float, the noise that was predicted.
        """
        condition = self.null_prompt.expand(z_t.shape[0], -1, -1)
        skips, middle = self.controller(z_t, t, condition, controlnet_cond=z_0, return_dict=False)
        predicted: Tensor = self.unet(
            z_t,
            t,
            condition,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return predicted

    def noise_to_signal(self, timestep: int) -> float:
        """Return sqrt((1 - alpha_bar) / alpha_bar), how much noise there is for each unit of z_0, at a timestep."""
        kept = float(self.scheduler.alphas_cumprod[timestep])
        return math.sqrt((1 - kept) / kept)

    def to(self, device: torch.device) -> DiffusionModel:
        """Return the model with every tensor on ``device``; the networks are moved in place."""
        self.unet.to(device)
        self.controller.to(device)
        self.autoencoder.to(device)
        return replace(self, null_prompt=self.null_prompt.to(device))

    def save(self, folder: Path, *, half: bool = False, controller: bool = True) -> None:
        """Write the model as a folder that :func:`load_model_folder` reads.

        Args:
            folder: Where to; made if absent.
            half: Store the weights as float16, half the size.
            controller: Whether to write the Controller too; one that is not adapted yet is better left out.

        Raises:
            OutputError: The folder cannot be written to.
        """
        write_network(self.unet, folder / "unet", half=half)
        if controller:
            write_network(self.controller, folder / "controller", half=half)
        match self.autoencoder:
            case PixelUnshuffleAutoencoder():
                self.autoencoder.save_config(folder / "vae")
            case StableDiffusionAutoencoder():
                write_network(self.autoencoder.network, folder / "vae", half=half)
        self.scheduler.save_pretrained(folder / "scheduler")
        write_null_prompt(self.null_prompt, folder / NULL_PROMPT_FILE)
