"""Representation alignment (REPA; Yu et al., 2024): a U-Net's blocks also learn to tell another network's features.

Differences from the paper: every block that features are read from tells them, at t = 0, where they are read; what is
told is all maps of a network of several resolutions, by a linear map and under a squared error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffvqa.stages._backbones.interface import FeatureBackbone
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.pooling import pool_to_grid
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._denoiser_training.crops import CropSampler
from diffvqa.stages._denoiser_training.objective import Denoising, Draws
from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import AlignRecipe, FitRecipe
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._extract_recipe import ExtractRecipe

_EXAMPLES = 640
_EXAMPLES_AT_ONCE = 32
_FINEST_GRID = 16
_LEAST_DEVIATION = 1e-3  # of a map over the examples


class Teacher:
    """A frozen backbone, and the scale of each of its maps.

    Args:
        backbone: Whose maps are told.
        examples: (N, 3, S, S) uint8 RGB, on the backbone's device: crops to take the scales from.
    """

    def __init__(self, backbone: FeatureBackbone, examples: Tensor) -> None:
        self.backbone = backbone
        maps = torch.cat([self._maps(part) for part in torch.split(examples, _EXAMPLES_AT_ONCE)])
        self._mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        self._deviation = maps.std(dim=(0, 2, 3), keepdim=True).clamp_(min=_LEAST_DEVIATION)

    @property
    def width(self) -> int:
        """How many maps there are (F)."""
        return self._mean.shape[1]

    def maps(self, crops: Tensor) -> Tensor:
        """Return the maps of (B, 3, S, S) uint8 crops: (B, F, g, g) float32, of mean 0 and deviation 1."""
        return (self._maps(crops) - self._mean) / self._deviation

    @torch.no_grad()
    def _maps(self, crops: Tensor) -> Tensor:
        views = crops.permute(0, 2, 3, 1)
        return self.backbone.extract(views, [0] * len(views)).multiscale


def load_teacher_backbone(recipe: AlignRecipe, device: torch.device) -> FeatureBackbone:
    """Load the backbone that a recipe names.

    Args:
        recipe: Of the training.
        device: Where the training is.

    Raises:
        BackboneError: There is no such backbone, or its weights are not installed.
        ModelFolderError: It is a model folder that cannot be loaded.
    """
    seen = ExtractRecipe(model=recipe.teacher, view_size=recipe.crop_size, grid=_FINEST_GRID, multiscale_std=False)
    return load_backbone(seen, Placement(device, channels_last=True))


def teacher_of(
    backbone: FeatureBackbone, pictures: TrainingPictures, recipe: AlignRecipe, device: torch.device
) -> Teacher:
    """Return a backbone as a teacher of these pictures: the scales of its maps are taken from crops of them.

    Args:
        backbone: Who teaches.
        pictures: To cut crops from, as the training does, but others.
        recipe: Of the training.
        device: Where the backbone is.
    """
    crops = CropSampler(pictures.train, recipe, "teacher").batch(0, range(_EXAMPLES))
    return Teacher(backbone, torch.from_numpy(crops).to(device))


class Told(NamedTuple):
    """What an :class:`AlignedUnet` returns; a tuple, as networks that share out batches must.

    Attributes:
        noise: (B, C, h, w), predicted.
        maps: What each block tells of the teacher's maps, of the N crops at t = 0: (N, F, g', g'), in the block's own
            grid or the finest.
    """

    noise: Tensor
    maps: list[Tensor]


class AlignedUnet(nn.Module):
    """A U-Net whose middle and up-blocks tell a teacher's maps, each by a linear map of its channels.

    Args:
        unet: Trained along.
        width: Maps of the teacher (F).
        seed: Of the linear maps' weights.
    """

    def __init__(self, unet: UNet2DConditionModel, width: int, seed: int) -> None:
        super().__init__()
        self.unet = unet
        widths = unet.config.block_out_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(
                nn.Conv2d(channels, width, kernel_size=1) for channels in (widths[-1], *reversed(widths))
            )

    def forward(self, z_t: Tensor, t: Tensor, condition: Tensor) -> Told:
        """Return the predicted noise and the told maps.

        Args:
            z_t: (B, C, h, w) float, the noised latents.
            t: (B,) int64, timesteps.
            condition: (B, tokens, width) float.
        """
        maps: list[Tensor] = []
        hooks = [block.register_forward_hook(_adding_to(maps)) for block in (self.unet.mid_block, *self.unet.up_blocks)]
        try:
            noise = self.unet(z_t, t, condition, return_dict=False)[0]
        finally:
            for hook in hooks:
                hook.remove()
        # Where no crop is told, the heads still have gradients, of 0: several processes wait for those.
        read = (pool_to_grid([each[t == 0]], min(each.shape[-1], _FINEST_GRID), with_std=False) for each in maps)
        return Told(noise, [head(each) for head, each in zip(self.heads, read, strict=True)])


@dataclass(frozen=True)
class AlignedDenoising(Denoising):
    """The training of a U-Net whose blocks also learn to tell a teacher's maps.

    Attributes:
        teacher: Whose.
        weight: Of the squared error of what a crop at t = 0 is told by, a mean over blocks, maps and cells.
    """

    teacher: Teacher
    weight: float

    def errors_of(self, predicted: Told, crops: Tensor, drawn: Draws, recipe: FitRecipe) -> Tensor:
        """Return the loss of each crop, (B,) float32: that of the noise and, where t = 0, of the maps."""
        is_told = drawn.t == 0
        wanted = self.teacher.maps(crops[is_told])
        missed = [
            (maps.float() - pool_to_grid([wanted], maps.shape[-1], with_std=False)).square().mean(dim=(1, 2, 3))
            for maps in predicted.maps
        ]
        errors = self.noise_errors(predicted.noise, drawn, recipe)
        return errors.index_add(0, is_told.nonzero()[:, 0], self.weight * torch.stack(missed).mean(dim=0))


def aligned_denoising(model: DiffusionModel, teacher: Teacher, recipe: AlignRecipe) -> AlignedDenoising:
    """Return the training of a model's U-Net under a teacher, without its Controller.

    The error of the told maps counts ``teacher_weight`` times its mean over the crops at t = 0.

    Args:
        model: On its device.
        teacher: On the same.
        recipe: Of the training.
    """

    def predict(network: Any, z_t: Tensor, t: Tensor, _: Tensor) -> Told:
        told: Told = network(z_t, t, model.null_prompt.expand(len(z_t), -1, -1))
        return told

    network = AlignedUnet(model.unet, teacher.width, recipe.seed).to(model.null_prompt.device)
    return AlignedDenoising(model, network, predict, teacher, recipe.teacher_weight / recipe.at_zero)


def _adding_to(maps: list[Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        maps.append(output)

    return hook
