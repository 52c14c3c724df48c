"""Small latent diffusion models with seeded random weights."""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffvqa.stages._denoiser_training.recipe import Architecture
from diffvqa.stages._diffusion.autoencoder import PixelUnshuffleAutoencoder
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.schedule import ddpm_schedule


def build_untrained(architecture: Architecture, seed: int) -> DiffusionModel:
    """Return a model of that architecture, its Controller a copy of the U-Net's encoder that changes nothing yet.

    Args:
        architecture: Its shapes.
        seed: Of the initial weights; the global random state stays as it is.
    """
    autoencoder = PixelUnshuffleAutoencoder(block_size=architecture.block_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=32,
            in_channels=autoencoder.latent_channels,
            out_channels=autoencoder.latent_channels,
            down_block_types=[
                "CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in architecture.attention
            ],
            up_block_types=[
                "CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(architecture.attention)
            ],
            block_out_channels=architecture.widths,
            layers_per_block=architecture.layers,
            cross_attention_dim=architecture.cross_attention_dim,
            attention_head_dim=architecture.attention_heads,  # diffusers' name for their number
            norm_num_groups=architecture.norm_groups,
        )
        controller = Controller.from_unet(unet, conditioning_channels=autoencoder.latent_channels)
    scheduler = ddpm_schedule(0.00085, 0.012, "scaled_linear")
    null_prompt = torch.zeros(1, 1, architecture.cross_attention_dim)
    return DiffusionModel(unet.eval(), controller.eval(), autoencoder, scheduler, null_prompt)
