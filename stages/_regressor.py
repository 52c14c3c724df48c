"""The regressor of stage two: from the cached features of a video to its quality, one branch for each view.

Each branch (S: the resized view, D: the native-resolution crops) runs DFF -> TDM -> FFF on the diffusion features and
TCAB on the frames themselves; the head reads both branches frame by frame. Beside them, which is not in the paper, it
reads the texture of the latent, and to its quality is added what kernel ridge regression makes of statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffvqa.stages._dff import DiffusionFeatureFusion
from diffvqa.stages._dropout import Dropout
from diffvqa.stages._fff import FrameFeatureFusion
from diffvqa.stages._frame_summary import FrameSummary, kind_shares
from diffvqa.stages._kernel_ridge import KernelRidge
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._quality_head import QualityHead
from diffvqa.stages._tcab import TemporalCoherenceAugmentation
from diffvqa.stages._tdm import TemporalDifference
from diffvqa.stages._texture import TextureFusion
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import BranchInput, BranchMoments, BranchShape, VideoBatch


@dataclass(frozen=True)
class Prediction:
    """The quality of B videos, each figure the mean over the K crops.

    Attributes:
        score: (B,) float32, raw: on no scale in particular until it is calibrated.
        frame_quality: (B, F) float32, likewise; 0 for padding.
        frame_weight: (B, F) float32 in [0, 1], sums to one over a video's frames; 0 for padding.
    """

    score: Tensor
    frame_quality: Tensor
    frame_weight: Tensor


class Branch(nn.Module):
    """What is done to one view: DFF, TDM and FFF on the diffusion features, their texture, TCAB on the frames.

    Args:
        shape: Of the view's features.
        recipe: Widths, depths, and which blocks are on.
    """

    def __init__(self, shape: BranchShape, recipe: TrainRecipe) -> None:
        super().__init__()
        self.dff = DiffusionFeatureFusion(shape, recipe.width, enabled=recipe.dff)
        self.tdm = TemporalDifference(recipe.width, enabled=recipe.tdm)
        self.fff = FrameFeatureFusion(self.tdm.channels, self.dff.grid, recipe.width, enabled=recipe.fff)
        self.tcab = (
            TemporalCoherenceAugmentation(
                shape.frame_size, recipe.tcab_patch, recipe.tcab_width, recipe.tcab_depth, recipe.tcab_state
            )
            if recipe.tcab
            else None
        )
        self.texture = TextureFusion(shape.texture, recipe.width) if recipe.texture and shape.texture else None
        self.width = self.fff.width + (recipe.tcab_width if recipe.tcab else 0) + (recipe.width if self.texture else 0)

    def set_input_statistics(self, moments: BranchMoments) -> None:
        """Set what the inputs are standardised with; part of the state dict."""
        self.dff.standardise_multiscale.set(moments.multiscale)
        if moments.latent is not None:
            self.dff.standardise_latent.set(moments.latent)
        if self.texture is not None and moments.texture is not None:
            self.texture.standardise.set(moments.texture)

    def forward(self, view: BranchInput, frame_mask: Tensor) -> Tensor:
        """Return concat(F_FFF, F_TCAB, texture), (B, F, self.width), of a view with leading axes (B, F)."""
        every_frame = view.map(lambda part: part.flatten(0, 1))
        fused = self.dff(every_frame.latent, every_frame.multiscale)
        features = [self.fff(self.tdm(fused.unflatten(0, frame_mask.shape)))]
        if self.tcab is not None:
            features.append(self.tcab(view.frames, frame_mask))
        if self.texture is not None:
            features.append(self.texture(view.texture))
        return torch.cat(features, dim=-1)


class Regressor(nn.Module):
    """The whole of stage two: features of a video in, its quality out.

    Args:
        recipe: Widths, depths and dropout, and which blocks and branches are on.
        resize_shape: Of the features of the resized view (S).
        crop_shape: Of the features of a crop (D).
        networks: What of F_MS each network of the backbone has, in their order: the kernel part compares the maps of
            each by themselves. One network has all of them when empty.

    Raises:
        TrainingDataError: ``tcab_patch`` is larger than a view's frames.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        resize_shape: BranchShape,
        crop_shape: BranchShape,
        networks: Sequence[NetworkMaps] = (),
    ) -> None:
        super().__init__()
        self.resize_shape = resize_shape
        self.crop_shape = crop_shape
        self.networks = tuple(networks)
        self.resize_branch = Branch(resize_shape, recipe) if recipe.branches != "crop" else None
        self.crop_branch = Branch(crop_shape, recipe) if recipe.branches != "resize" else None
        branches = (self.resize_branch, self.crop_branch)
        width = sum(branch.width for branch in branches if branch is not None)
        self.head = QualityHead(width, recipe.head_width, recipe.dropout, weighted=recipe.frame_weights)
        self.recipe = recipe
        shares = kind_shares(recipe, self.networks, has_texture=resize_shape.texture is not None)
        self.kernel = KernelRidge(shares) if recipe.kernel else None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def set_input_statistics(self, moments: Mapping[str, BranchMoments]) -> None:
        """Set what the inputs of ``resize`` and ``crop`` are standardised with; part of the state dict."""
        for branch, view in ((self.resize_branch, "resize"), (self.crop_branch, "crop")):
            if branch is not None:
                branch.set_input_statistics(moments[view])

    def draw_dropout_from(self, generator: torch.Generator | None) -> None:
        """Let dropout draw from this generator, on the regressor's device; from the process's own when None."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def forward(self, batch: VideoBatch) -> Prediction:
        """Return the quality of each video, averaged over the crops it comes with."""
        mask, crops = batch.frame_mask, batch.crop.frames.shape[1]
        parts = []
        if self.resize_branch is not None:
            parts.append(self.resize_branch(batch.resize, mask).unsqueeze(1).expand(-1, crops, -1, -1))
        if self.crop_branch is not None:
            every_crop = batch.crop.map(lambda part: part.flatten(0, 1))
            parts.append(self.crop_branch(every_crop, mask.repeat_interleave(crops, dim=0)).unflatten(0, (-1, crops)))
        quality, weight = self.head(torch.cat(parts, dim=-1), mask.unsqueeze(1).expand(-1, crops, -1))
        if self.kernel is not None:
            told = self._ask_kernel(self.kernel, batch) if batch.kernel_quality is None else batch.kernel_quality
            quality = quality + told.masked_fill(~mask, 0.0).unsqueeze(1)
        return Prediction((quality * weight).sum(-1).mean(1), quality.mean(1), weight.mean(1))

    def _ask_kernel(self, kernel: KernelRidge, batch: VideoBatch) -> Tensor:
        """Return (B, F) float32, in full precision whatever the network computes in."""
        with torch.autocast(batch.frame_mask.device.type, enabled=False):
            summary = FrameSummary.of(batch.resize, batch.crop)
            told: Tensor = kernel(summary.kinds(self.recipe, self.networks))
        return told
