"""Frames to reconstructed frames: what an adapted model makes of the noise when it is shown a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffvqa.stages._diffusion.autoencoder import to_model_range
from diffvqa.stages._diffusion.denoising import denoise, denoising_timesteps, noise_generators
from diffvqa.stages._diffusion.model import DiffusionModel


@torch.inference_mode()
def reconstruct_frames(
    model: DiffusionModel, frames: NDArray[np.uint8], seeds: Sequence[int], *, steps: int, start_timestep: int
) -> NDArray[np.uint8]:
    """Return D(z_0-hat) of each frame.

    Args:
        model: On its device.
        frames: (B, H, W, 3) uint8 RGB; both sides are multiples of ``model.frame_multiple``.
        seeds: Of each frame's noise.
        steps: Denoising steps.
        start_timestep: Where they start, in [0, 999]; 999 is pure noise.

    Returns:
        (B, H, W, 3) uint8 RGB.
    """
    pixels = torch.from_numpy(frames).to(model.null_prompt.device).permute(0, 3, 1, 2)
    z_0 = model.autoencoder.encode(to_model_range(pixels))
    z_hat = denoise(model, z_0, denoising_timesteps(steps, start_timestep), noise_generators(seeds))
    decoded = (model.autoencoder.decode(z_hat).float() + 1) * 127.5
    reconstructed: NDArray[np.uint8] = decoded.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return reconstructed
