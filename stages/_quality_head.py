"""The head: a quality and a weight for each frame, from the features of both branches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffvqa.stages._dropout import Dropout


class QualityHead(nn.Module):
    """Two MLPs, one for the quality and one for the weight of each frame.

    Args:
        channels: Of concat(F_TCAB-S, F_FFF-S, F_FFF-D, F_TCAB-D).
        hidden: Width of the MLPs.
        dropout: Share of the features dropped in training.
        weighted: False for the ablation: every frame weighs the same.
    """

    def __init__(self, channels: int, hidden: int, dropout: float, *, weighted: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.quality = self._make_mlp(channels, hidden, dropout)
        self.weight = self._make_mlp(channels, hidden, dropout) if weighted else None

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return each frame's quality and its weight, which sums to one over the valid frames; both 0 for padding.

        Args:
            features: (..., F, channels) float.
            frame_mask: (..., F) bool, at least one frame of each video valid.
        """
        features = self.norm(features)
        quality = self.quality(features).squeeze(-1).float()
        logits = torch.zeros_like(quality) if self.weight is None else self.weight(features).squeeze(-1).float()
        weight = torch.softmax(logits.masked_fill(~frame_mask, -math.inf), dim=-1)
        return quality.masked_fill(~frame_mask, 0.0), weight

    @staticmethod
    def _make_mlp(channels: int, hidden: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            Dropout(dropout), nn.Linear(channels, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, 1)
        )
