"""TCAB, the temporal coherence augmentation block: Mamba over the frames themselves, in parallel to the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._mamba import BidirectionalMamba
from diffvqa.stages._stored_product import stored_linear

_HALF_RANGE = 127.5


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
        # Pixels become -1 to 1 by way of the weights: to scale a copy of every frame would cost as much as the product.
        weight = self.embed.weight / _HALF_RANGE
        bias = self.embed.bias - self.embed.weight.sum(1)
        tokens = stored_linear(self._patches(frames), weight, bias) + self.position
        tokens = tokens + time_embedding(frames.shape[1], tokens.shape[-1], tokens.device)[:, None]
        per_frame = tokens.shape
        tokens, mask = tokens.flatten(1, 2), frame_mask.repeat_interleave(self.side**2, dim=1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        averaged: Tensor = self.norm(tokens).reshape(per_frame).mean(2)
        return averaged

    def _patches(self, frames: Tensor) -> Tensor:
        """Cut frames (B, F, S, S, 3) uint8 into (B, F, patches, 3 patch^2) uint8."""
        side, patch, leading = self.side, self.patch, frames.shape[:2]
        covered = frames[:, :, : side * patch, : side * patch]
        grid = covered.reshape(*leading, side, patch, side, patch, 3).transpose(3, 4)
        return grid.reshape(*leading, side**2, 3 * patch**2)


def time_embedding(frames: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoidal embedding of the frame numbers (Vaswani et al., 2017), (frames, width) float32."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
