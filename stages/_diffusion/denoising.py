"""The trajectory: from a noised latent down to the reconstruction of z_0, in DDPM steps under the Controller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._extract_recipe import PURE_NOISE_TIMESTEP


def denoising_timesteps(steps: int, start_timestep: int) -> list[int]:
    """Return the timesteps of a trajectory, descending: ``steps`` of them from ``start_timestep``, evenly spaced, to 0.

    One step alone is taken at the start. ``steps=50, start_timestep=999`` is the paper's trajectory. Where the start
    leaves fewer than ``steps`` whole timesteps, each of those is taken once.

    Args:
        steps: Number of network calls, at least 1.
        start_timestep: In [0, 999].
    """
    if steps == 1:
        return [start_timestep]
    spaced = np.linspace(start_timestep, 0, steps).round().astype(int)
    return list(dict.fromkeys(spaced.tolist()))


def noise_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one generator per view. They run on the CPU, so that the noise is the same whatever computes the rest."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noised_start(
    model: DiffusionModel, z_0: Tensor, start_timestep: int, generators: Sequence[torch.Generator]
) -> Tensor:
    """Return z_t at the start of a trajectory: z_0 noised to there, or noise alone where nothing is left of z_0.

    Args:
        model: Whose schedule it is.
        z_0: (B, C, h, w) float, the clean latents.
        start_timestep: In [0, 999]; 999 starts from pure noise.
        generators: One per latent.

    Returns:
        (B, C, h, w), dtype and device of ``z_0``.
    """
    drawn = torch.stack([torch.randn(z_0.shape[1:], generator=generator) for generator in generators])
    noise = drawn.to(z_0)
    if start_timestep == PURE_NOISE_TIMESTEP:
        return noise
    noised: Tensor = model.scheduler.add_noise(z_0, noise, torch.tensor([start_timestep], device=z_0.device))
    return noised


def denoise(
    model: DiffusionModel,
    z_0: Tensor,
    timesteps: Sequence[int],
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Return the reconstruction of ``z_0`` that the controlled model makes of noise.

    A latent's result depends on that latent, the timesteps and its own generator; its neighbours in the batch change
    it by rounding alone. Between the network's calls everything is computed in the precision of ``z_0``, under autocast
    too.

    Args:
        model: On the device of ``z_0``.
        z_0: (B, C, h, w) float32, the clean latents: what the Controller is shown.
        timesteps: Descending; from :func:`denoising_timesteps`.
        generators: One per latent, from :func:`noise_generators`; they are drawn from.

    Returns:
        (B, C, h, w), the reconstructed latents, in the unit of ``z_0``; dtype and device are those of ``z_0``.
    """
    model.scheduler.set_timesteps(timesteps=list(timesteps), device=z_0.device)
    z_t = noised_start(model, z_0, timesteps[0], generators)
    for timestep in timesteps:
        t = torch.full((len(z_0),), timestep, device=z_0.device)
        predicted = model.predict_noise(z_t, t, z_0)
        z_t = model.scheduler.step(predicted.to(z_t.dtype), timestep, z_t, generator=list(generators)).prev_sample
    return z_t
