"""The regressor of stage two: from the cached features of a video to its quality, one branch for each view.

Each branch (S: the resized view, D: the native-resolution crops) runs DFF -> TDM -> FFF on the diffusion features and
TCAB on the frames themselves; the head reads both branches frame by frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffvqa.stages.errors import TrainingDataError
from diffvqa.stages.mamba import BidirectionalMamba
from diffvqa.stages.train_recipe import TrainRecipe
from diffvqa.stages.training_data import BranchInput, BranchShape, BranchStatistics, ChannelStatistics, VideoBatch

__all__ = ["BranchInput", "BranchShape", "Prediction", "Regressor", "VideoBatch"]

_FUSED_GRID = 8
_CHANNEL_REDUCTION = 4
_SPATIAL_KERNEL = 7
_SMALLEST_STD = 1e-6
_VARIANCE_FLOOR = 1e-5


@dataclass(frozen=True)
class Prediction:
    """The quality of B videos, each figure the mean over the K crops.

    Attributes:
        score: (B,) float, on the label scale.
        frame_quality: (B, F) float, on the label scale; 0 for padding.
        frame_weight: (B, F) float in [0, 1], sums to one over a video's frames; 0 for padding.
    """

    score: Tensor
    frame_quality: Tensor
    frame_weight: Tensor


class Standardisation(nn.Module):
    """Brings each channel to mean 0 and standard deviation 1 with statistics that are stored, not learned.

    Args:
        channels: C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, statistics: ChannelStatistics) -> None:
        """Take over the statistics; a channel that never varies is only centred."""
        self.mean.copy_(statistics.mean)
        self.std.copy_(torch.where(statistics.std < _SMALLEST_STD, torch.ones_like(statistics.std), statistics.std))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the standardised maps, a new (N, C, h, w) float32 of any float."""
        # In place on the copy: fresh memory for so large a tensor costs more than the arithmetic.
        standardised = maps.to(self.mean.dtype, copy=True)
        return standardised.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])


class ChannelAttention(nn.Module):
    """The channel attention of CBAM (Woo et al., 2018): sigmoid(MLP(mean over the grid) + MLP(maximum over the grid)).

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // _CHANNEL_REDUCTION)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the factor of each channel, (N, width, 1, 1) in (0, 1), for maps (N, width, h, w)."""
        return torch.sigmoid(self.mlp(maps.mean((-2, -1))) + self.mlp(maps.amax((-2, -1))))[:, :, None, None]


class SpatialAttention(nn.Module):
    """The spatial attention of CBAM (Woo et al., 2018): sigmoid(conv(mean and maximum over the channels))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, _SPATIAL_KERNEL, padding=_SPATIAL_KERNEL // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the factor of each place, (N, 1, h, w) in (0, 1), for maps (N, width, h, w)."""
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))


class DiffusionFeatureFusion(nn.Module):
    """DFF: fuses the two diffusion features of a frame into F_DFF, on a grid of about 8 x 8.

    The convolution over concat(latent, multiscale) is the sum of one over each. Its stride equals its kernel, so that
    it sees the latent's grid in blocks; the multiscale features, which are coarser, are brought to the grid of blocks.

    Args:
        shape: Of the branch's features.
        width: Channels of F_DFF.
    """

    def __init__(self, shape: BranchShape, width: int) -> None:
        super().__init__()
        channels, height, breadth = shape.latent
        stride = max(1, min(height, breadth) // _FUSED_GRID)
        adjusted = max(channels, width)
        self.standardise_latent = Standardisation(channels)
        self.standardise_multiscale = Standardisation(shape.multiscale[0])
        self.adjust = nn.Conv2d(shape.multiscale[0], adjusted, kernel_size=1)
        self.conv_latent = nn.Conv2d(channels, width, kernel_size=stride, stride=stride)
        self.conv_multiscale = nn.Conv2d(adjusted, width, kernel_size=1, bias=False)
        self.channel_attention = ChannelAttention(width)
        self.spatial_attention = SpatialAttention()

    def forward(self, latent: Tensor, multiscale: Tensor) -> Tensor:
        """Return F_DFF.

        Args:
            latent: (N, C, h, w) float, F_Latent.
            multiscale: (N, Cm, g, g) float, F_MS.

        Returns:
            (N, width, h', w') float.
        """
        blocks = self.conv_latent(self.standardise_latent(latent))
        adjusted = F.gelu(self.adjust(self.standardise_multiscale(multiscale)))
        if adjusted.shape[-2:] != blocks.shape[-2:]:
            adjusted = F.interpolate(adjusted, blocks.shape[-2:], mode="bilinear", align_corners=False)
        fused = F.gelu(blocks + self.conv_multiscale(adjusted))
        fused = fused * self.channel_attention(fused)
        attended: Tensor = fused * self.spatial_attention(fused)
        return attended


class TemporalDifference(nn.Module):
    """TDM: puts beside each frame's F_DFF its difference from the frame before."""

    def forward(self, fused: Tensor) -> Tensor:
        """Return F_TDM = concat(F_DFF at t, F_DFF at t minus F_DFF at t-1).

        Args:
            fused: (B, F, W, h, w) float, F_DFF.

        Returns:
            (B, F, 2 W, h, w) float; the difference of the first frame is zero.
        """
        difference = torch.diff(fused, dim=1, prepend=fused[:, :1])
        return torch.cat([fused, difference], dim=2)


class FrameFeatureFusion(nn.Module):
    """FFF: fuses F_TDM over the frames with a convolution over time into F_FFF, read out per frame.

    Before it, each channel's grid is flattened into its mean and its standard deviation, so that the size of F_FFF
    depends neither on the grid nor on the number of frames.

    Args:
        channels: Of F_TDM.
        width: Of F_FFF.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * channels, width, kernel_size=3, padding=1)

    def forward(self, differences: Tensor, frame_mask: Tensor) -> Tensor:
        """Return F_FFF.

        Args:
            differences: (B, F, channels, h, w) float, F_TDM.
            frame_mask: (B, F) bool.

        Returns:
            (B, F, width) float.
        """
        variance, mean = torch.var_mean(differences, dim=(-2, -1), correction=0)
        # The floor keeps the gradient finite where a map is constant, as the first frame's difference is.
        flat = torch.cat([mean, (variance + _VARIANCE_FLOOR).sqrt()], dim=-1)
        flat = flat * frame_mask.unsqueeze(-1)
        return F.gelu(self.conv(flat.transpose(1, 2))).transpose(1, 2)


class TemporalCoherenceAugmentation(nn.Module):
    """TCAB: bidirectional Mamba over the patches of all frames, as in VideoMamba, read out per frame as F_TCAB.

    Args:
        frame_size: Side of a frame, in pixels; what is left over beyond whole patches is not looked at.
        patch: Side of a patch, in pixels.
        width: Of a token and of F_TCAB.
        depth: Number of blocks.
        state: States per channel of the selective scan.

    Raises:
        TrainingDataError: A patch is larger than a frame.
    """

    def __init__(self, frame_size: int, patch: int, width: int, depth: int, state: int) -> None:
        super().__init__()
        if patch > frame_size:
            raise TrainingDataError(
                f"tcab_patch is {patch} pixels, but the frames in the cache are only {frame_size} pixels wide.",
                f"Set tcab_patch to at most {frame_size}.",
            )
        self.patch = patch
        self.side = frame_size // patch
        self.embed = nn.Linear(3 * patch**2, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(BidirectionalMamba(width, state) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Return F_TCAB.

        Args:
            frames: (B, F, S, S, 3) uint8, RGB.
            frame_mask: (B, F) bool.

        Returns:
            (B, F, width) float, the mean over each frame's tokens.
        """
        tokens = self.embed(self._patches(frames)) + self.position
        tokens = tokens + time_embedding(frames.shape[1], tokens.shape[-1], tokens.device)[:, None]
        per_frame = tokens.shape
        tokens, mask = tokens.flatten(1, 2), frame_mask.repeat_interleave(self.side**2, dim=1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        averaged: Tensor = self.norm(tokens).reshape(per_frame).mean(2)
        return averaged

    def _patches(self, frames: Tensor) -> Tensor:
        """Cut frames (B, F, S, S, 3) uint8 into (B, F, patches, 3 patch^2) float32 in [-1, 1]."""
        side, patch, leading = self.side, self.patch, frames.shape[:2]
        covered = frames[:, :, : side * patch, : side * patch]
        grid = covered.reshape(*leading, side, patch, side, patch, 3).transpose(3, 4)
        return grid.reshape(*leading, side**2, 3 * patch**2).to(torch.float32).div_(127.5).sub_(1.0)


class Branch(nn.Module):
    """What is done to one view: DFF, TDM and FFF on the diffusion features, TCAB on the frames.

    Args:
        shape: Of the view's features.
        recipe: Widths and depths.
    """

    def __init__(self, shape: BranchShape, recipe: TrainRecipe) -> None:
        super().__init__()
        self.dff = DiffusionFeatureFusion(shape, recipe.width)
        self.tdm = TemporalDifference()
        self.fff = FrameFeatureFusion(2 * recipe.width, recipe.width)
        self.tcab = TemporalCoherenceAugmentation(
            shape.frame_size, recipe.tcab_patch, recipe.tcab_width, recipe.tcab_depth, recipe.tcab_state
        )

    def forward(self, view: BranchInput, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return F_TCAB, (B, F, tcab_width), and F_FFF, (B, F, width), of a view with leading axes (B, F)."""
        fused = self.dff(view.latent.flatten(0, 1), view.multiscale.flatten(0, 1))
        differences = self.tdm(fused.reshape(*frame_mask.shape, *fused.shape[1:]))
        return self.tcab(view.frames, frame_mask), self.fff(differences, frame_mask)


class QualityHead(nn.Module):
    """Two MLPs, one for the quality and one for the weight of each frame.

    Args:
        channels: Of concat(F_TCAB-S, F_FFF-S, F_FFF-D, F_TCAB-D).
        hidden: Width of the MLPs.
        dropout: Share of the hidden features dropped in training.
    """

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.quality = self._make_mlp(channels, hidden, dropout)
        self.weight = self._make_mlp(channels, hidden, dropout)

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return each frame's quality and its weight, which sums to one over the valid frames; both 0 for padding.

        Args:
            features: (..., F, channels) float.
            frame_mask: (..., F) bool, at least one frame of each video valid.
        """
        features = self.norm(features)
        quality = self.quality(features).squeeze(-1).masked_fill(~frame_mask, 0.0)
        logits = self.weight(features).squeeze(-1).masked_fill(~frame_mask, -math.inf)
        return quality, torch.softmax(logits, dim=-1)

    @staticmethod
    def _make_mlp(channels: int, hidden: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Dropout(dropout), nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )


class Regressor(nn.Module):
    """The whole of stage two: features of a video in, its quality out.

    Args:
        recipe: Widths, depths and dropout.
        resize_shape: Of the features of the resized view (S).
        crop_shape: Of the features of a crop (D).

    Raises:
        TrainingDataError: ``tcab_patch`` is larger than a view's frames.
    """

    slope: Tensor
    intercept: Tensor

    def __init__(self, recipe: TrainRecipe, resize_shape: BranchShape, crop_shape: BranchShape) -> None:
        super().__init__()
        self.resize_shape = resize_shape
        self.crop_shape = crop_shape
        self.resize_branch = Branch(resize_shape, recipe)
        self.crop_branch = Branch(crop_shape, recipe)
        self.head = QualityHead(2 * (recipe.width + recipe.tcab_width), recipe.head_width, recipe.dropout)
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))

    def set_input_statistics(self, resize: BranchStatistics, crop: BranchStatistics) -> None:
        """Set what the inputs are standardised with; part of the state dict."""
        for branch, statistics in ((self.resize_branch, resize), (self.crop_branch, crop)):
            branch.dff.standardise_latent.set(statistics.latent)
            branch.dff.standardise_multiscale.set(statistics.multiscale)

    def set_calibration(self, slope: float, intercept: float) -> None:
        """Set the line that brings raw scores to the label scale; part of the state dict."""
        self.slope.fill_(slope)
        self.intercept.fill_(intercept)

    def forward(self, batch: VideoBatch) -> Prediction:
        """Return the quality of each video, averaged over the crops it comes with."""
        mask = batch.frame_mask
        crops = batch.crop.latent.shape[1]
        tcab_s, fff_s = self.resize_branch(batch.resize, mask)
        crop_mask = mask.repeat_interleave(crops, dim=0)
        every_crop = BranchInput(*(part.flatten(0, 1) for part in batch.crop.parts()))
        tcab_d, fff_d = self.crop_branch(every_crop, crop_mask)

        shared = [part.repeat_interleave(crops, dim=0) for part in (tcab_s, fff_s)]
        quality, weight = self.head(torch.cat([*shared, fff_d, tcab_d], dim=-1), crop_mask)
        raw = Prediction((quality * weight).sum(-1), quality, weight)
        score, quality, weight = (part.reshape(-1, crops, *part.shape[1:]).mean(1) for part in _figures_of(raw))
        return Prediction(
            score=self.slope * score + self.intercept,
            frame_quality=(self.slope * quality + self.intercept) * mask,
            frame_weight=weight,
        )


def time_embedding(frames: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoidal embedding of the frame numbers (Vaswani et al., 2017), (frames, width) float32."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def _figures_of(prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    return prediction.score, prediction.frame_quality, prediction.frame_weight
