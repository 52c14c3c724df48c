"""Diffusion features of views: the reconstructed latent, and the U-Net decoder's maps at the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from diffvqa.stages.backbones.interface import Level, ViewFeatures
from diffvqa.stages.backbones.placement import Placement
from diffvqa.stages.backbones.pooling import pool_to_grid, pooled_levels
from diffvqa.stages.diffusion.autoencoder import StableDiffusionAutoencoder, to_model_range
from diffvqa.stages.diffusion.denoising import denoise, denoising_timesteps, noise_generators
from diffvqa.stages.diffusion.model import DiffusionModel
from diffvqa.stages.errors import BackboneError
from diffvqa.stages.extract_recipe import ExtractRecipe


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
            placement.place(network, _compiled_regions(network))
        if isinstance(model.autoencoder, StableDiffusionAutoencoder):
            encoder = model.autoencoder.network.encoder
            placement.place(model.autoencoder.network, [*encoder.down_blocks, encoder.mid_block])
        self._model = model.to(placement.device)
        self._recipe = recipe
        self._kept = _numbers_of_kept_blocks(recipe, len(model.unet.up_blocks))
        self.fingerprint = fingerprint

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latent of one view."""
        side = self._recipe.view_size // self._model.autoencoder.block_size
        return (self._model.autoencoder.latent_channels, side, side)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The up-blocks that are kept, from the coarsest to the finest."""
        widths: Sequence[int] = self._model.unet.config.block_out_channels[::-1]
        blocks = [Level(f"up_blocks.{index}", widths[index]) for index in self._kept]
        return pooled_levels(blocks, with_std=self._recipe.multiscale_std)

    @property
    def view_multiple(self) -> int:
        """A view's side must be a multiple of this many pixels."""
        return self._model.frame_multiple

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        """Return the reconstructed latents of some views, and the up-blocks' maps at the last step.

        Args:
            views: (B, S, S, 3) uint8 RGB, on the backbone's device.
            seeds: One per view; its noise depends on nothing else.
        """
        z_0 = self._model.autoencoder.encode(to_model_range(views.permute(0, 3, 1, 2))).float()
        maps: list[Tensor] = []
        reconstructed = denoise(
            self._model,
            z_0,
            denoising_timesteps(self._recipe.steps, self._recipe.start_timestep),
            noise_generators(seeds),
            around_last_call=_captured_outputs(self._kept_blocks, into=maps),
        )
        multiscale = pool_to_grid(maps, self._recipe.grid, with_std=self._recipe.multiscale_std)
        return ViewFeatures(reconstructed, multiscale)

    @property
    def _kept_blocks(self) -> list[nn.Module]:
        return [self._model.unet.up_blocks[index] for index in self._kept]


def _numbers_of_kept_blocks(recipe: ExtractRecipe, there: int) -> tuple[int, ...]:
    kept = recipe.kept_up_blocks(there)
    missing = [index for index in kept if index >= there]
    if missing:
        raise BackboneError(
            f"extract.up_blocks = '{recipe.up_blocks}': the model '{recipe.model}' has no up-block {missing[0]}.",
            f"Its up-blocks are 0 to {there - 1}, the coarsest first.",
        )
    return kept


def _compiled_regions(network: Any) -> list[nn.Module]:
    """Return the parts to compile: an up-block's own parts, so that what it returns can still be looked at."""
    up_blocks = getattr(network, "up_blocks", ())  # the Controller has none
    inside = [part for block in up_blocks for parts in block.children() for part in parts]
    return [*network.down_blocks, network.mid_block, *inside]


@contextmanager
def _captured_outputs(blocks: Sequence[nn.Module], *, into: list[Tensor]) -> Iterator[None]:
    """Collect what each block returns, in their order, which is that of their calls."""
    handles = [block.register_forward_hook(lambda _, __, output: into.append(output)) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
