"""A latent diffusion model with its Controller, and the prediction that the two make together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffvqa.stages.diffusion.autoencoder import PixelUnshuffleAutoencoder
from diffvqa.stages.diffusion.controller import Controller

NULL_PROMPT_FILE = "null_prompt.safetensors"


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
    autoencoder: PixelUnshuffleAutoencoder
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

    def to(self, device: torch.device) -> DiffusionModel:
        """Return the model with every tensor on ``device``; the networks are moved in place."""
        self.unet.to(device)
        self.controller.to(device)
        return DiffusionModel(self.unet, self.controller, self.autoencoder, self.scheduler, self.null_prompt.to(device))

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write the model as a folder that :func:`load_model_folder` reads.

        Args:
            folder: Where to; made if absent.
            half: Store the weights as float16, half the size.
        """
        for network, name in ((self.unet, "unet"), (self.controller, "controller")):
            network.save_pretrained(folder / name)
            if half:
                weights = folder / name / SAFETENSORS_WEIGHTS_NAME
                halved = {key: tensor.half() for key, tensor in load_file(weights).items()}
                save_file(halved, weights, metadata={"format": "pt"})
        self.autoencoder.save_config(folder / "vae")
        self.scheduler.save_pretrained(folder / "scheduler")
        save_file({"null_prompt": self.null_prompt.cpu().contiguous()}, folder / NULL_PROMPT_FILE)
