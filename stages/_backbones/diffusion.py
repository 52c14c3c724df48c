"""Diffusion features of views: the reconstructed latent, and the U-Net decoder's maps at the last step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffvqa.stages._backbones.interface import Level, ViewFeatures
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.pooling import pool_to_grid, pooled_levels
from diffvqa.stages._diffusion.autoencoder import StableDiffusionAutoencoder, to_model_range
from diffvqa.stages._diffusion.denoising import denoise, denoising_timesteps, noise_generators
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._errors import BackboneError
from diffvqa.stages._extract_recipe import ExtractRecipe


class DiffusionBackbone:
    """Denoises views under the Controller and collects the features on the way.

    Args:
        model: With its Controller.
        recipe: Steps, start, up-blocks, grid.
        placement: Where and how it runs.
        fingerprint: Kind of the network to the SHA-256 of its weights.

    Raises:
        BackboneError: The recipe keeps an up-block that the model does not have.
    """

    def __init__(
        self, model: DiffusionModel, recipe: ExtractRecipe, placement: Placement, fingerprint: Mapping[str, str]
    ) -> None:
        for network in (model.unet, model.controller):
            placement.place(network)
        if isinstance(model.autoencoder, StableDiffusionAutoencoder):
            placement.place(model.autoencoder.network.encoder)
        self._model = model.to(placement.device)
        self._recipe = recipe
        self._kept = _numbers_of_kept_blocks(recipe, len(model.unet.up_blocks))
        middle = [model.unet.mid_block] if recipe.middle_block else []
        self._last = _keep_outputs([*middle, *(model.unet.up_blocks[index] for index in self._kept)])
        self.fingerprint = fingerprint

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latent of one view."""
        side = self._recipe.view_size // self._model.autoencoder.block_size
        return (self._model.autoencoder.latent_channels, side, side)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The U-Net's blocks that are kept, from the coarsest to the finest, and the residual of the latent."""
        widths: Sequence[int] = self._model.unet.config.block_out_channels[::-1]
        middle = [Level("mid_block", widths[0])] if self._recipe.middle_block else []
        blocks = [Level(f"up_blocks.{index}", widths[index]) for index in self._kept]
        residual = [Level("residual", self._model.autoencoder.latent_channels)] if self._recipe.residual else []
        return pooled_levels([*middle, *blocks, *residual], with_std=self._recipe.multiscale_std)

    @property
    def view_multiple(self) -> int:
        """A view's side must be a multiple of this many pixels."""
        return self._model.frame_multiple

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        """Return the reconstructed latents of some views, the blocks' maps at the last step, and the residual.

        The residual is (z_0 - its reconstruction) sqrt(alpha_bar / (1 - alpha_bar)) at the last step: after one step it
        is the predicted noise minus the true one.

        Args:
            views: (B, S, S, 3) uint8 RGB, on the backbone's device.
            seeds: One per view; its noise depends on nothing else.
        """
        z_0 = self._model.autoencoder.encode(to_model_range(views.permute(0, 3, 1, 2))).float()
        timesteps = denoising_timesteps(self._recipe.steps, self._recipe.start_timestep)
        reconstructed = denoise(self._model, z_0, timesteps, noise_generators(seeds))
        maps = list(self._last.maps)
        if self._recipe.residual:
            maps.append((z_0 - reconstructed) / self._model.noise_to_signal(timesteps[-1]))
        multiscale = pool_to_grid(maps, self._recipe.grid, with_std=self._recipe.multiscale_std)
        return ViewFeatures(reconstructed, multiscale)


def _numbers_of_kept_blocks(recipe: ExtractRecipe, there: int) -> tuple[int, ...]:
    kept = recipe.kept_up_blocks(there)
    missing = [index for index in kept if index >= there]
    if missing:
        raise BackboneError(
            f"extract.up_blocks = '{recipe.up_blocks}': the model '{recipe.model}' has no up-block {missing[0]}.",
            f"Its up-blocks are 0 to {there - 1}, the coarsest first.",
        )
    return kept


class _LastOutputs(threading.local):
    """What each block returned last, in the thread that asks: several may be at work in the networks.

    The hooks stay, as a compiled network would be compiled again for every hook that comes and goes.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.maps = [torch.empty(0)] * len(blocks)


def _keep_outputs(blocks: Sequence[nn.Module]) -> _LastOutputs:
    outputs = _LastOutputs(blocks)

    def keep(index: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            outputs.maps[index] = output

        return hook

    for index, block in enumerate(blocks):
        block.register_forward_hook(keep(index))
    return outputs
