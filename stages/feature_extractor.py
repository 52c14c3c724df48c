"""Diffusion features of views: the reconstructed latent, and the U-Net decoder's maps at the last step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diffvqa.stages.diffusion.autoencoder import to_model_range
from diffvqa.stages.diffusion.denoising import denoise, denoising_timesteps, noise_generators
from diffvqa.stages.diffusion.model import DiffusionModel
from diffvqa.stages.extract_recipe import ExtractRecipe


@dataclass(frozen=True)
class ViewFeatures:
    """Features of a batch of views.

    Attributes:
        latent: (B, C, h, w) float16, the reconstructed latents (F_Latent).
        multiscale: (B, C_ms, g, g) float16, the up-blocks' maps, each brought to g x g, one after the other (F_MS): the
            mean of each grid cell and, if the recipe says so, after all of these its standard deviation.
    """

    latent: NDArray[np.float16]
    multiscale: NDArray[np.float16]


class DiffusionFeatureExtractor:
    """Denoises views under the Controller and collects the features on the way.

    Args:
        model: With its Controller.
        recipe: Steps, start, grid.
        device: Where to compute.
        batch_size: Most views in one network call; changes speed and memory, never the results beyond rounding.
    """

    def __init__(self, model: DiffusionModel, recipe: ExtractRecipe, *, device: torch.device, batch_size: int) -> None:
        self._model = model.to(device)
        self._recipe = recipe
        self._device = device
        self._batch_size = batch_size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latent of one view."""
        side = self._recipe.view_size // self._model.autoencoder.block_size
        return (self._model.autoencoder.latent_channels, side, side)

    @property
    def multiscale_shape(self) -> tuple[int, int, int]:
        """(C_ms, g, g) of the multiscale features of one view."""
        widths: Sequence[int] = self._model.unet.config.block_out_channels
        statistics = 2 if self._recipe.multiscale_std else 1
        return (statistics * sum(widths), self._recipe.grid, self._recipe.grid)

    def __call__(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> ViewFeatures:
        """Extract the features of any number of views.

        Args:
            views: (B, S, S, 3) uint8 RGB.
            seeds: One per view; its noise depends on nothing else.
        """
        batches = [
            self._extract(views[start : start + self._batch_size], seeds[start : start + self._batch_size])
            for start in range(0, len(views), self._batch_size)
        ]
        return ViewFeatures(
            np.concatenate([batch.latent for batch in batches]),
            np.concatenate([batch.multiscale for batch in batches]),
        )

    @torch.inference_mode()
    def _extract(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> ViewFeatures:
        frames = to_model_range(torch.from_numpy(views).to(self._device).permute(0, 3, 1, 2))
        z_0 = self._model.autoencoder.encode(frames)
        timesteps = denoising_timesteps(self._recipe.steps, self._recipe.start_timestep)
        maps: list[Tensor] = []
        reconstructed = denoise(
            self._model,
            z_0,
            timesteps,
            noise_generators(seeds),
            around_last_call=_captured_outputs(self._model.unet.up_blocks, into=maps),
        )
        return ViewFeatures(_to_half(reconstructed), _to_half(self._on_grid(maps)))

    def _on_grid(self, maps: list[Tensor]) -> Tensor:
        means = [F.adaptive_avg_pool2d(level, self._recipe.grid) for level in maps]
        if not self._recipe.multiscale_std:
            return torch.cat(means, dim=1)
        squares = [F.adaptive_avg_pool2d(level.square(), self._recipe.grid) for level in maps]
        deviations = [
            (square - mean.square()).clamp_(min=0).sqrt() for square, mean in zip(squares, means, strict=True)
        ]
        return torch.cat([*means, *deviations], dim=1)


@contextmanager
def _captured_outputs(blocks: nn.ModuleList, *, into: list[Tensor]) -> Iterator[None]:
    """Collect what each block returns, in their order, which is that of their calls."""
    handles = [block.register_forward_hook(lambda _, __, output: into.append(output)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _to_half(tensor: Tensor) -> NDArray[np.float16]:
    half: NDArray[np.float16] = tensor.to(torch.float16).cpu().numpy()
    return half
