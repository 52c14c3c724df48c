"""Dropout whose draws belong to one training, whatever else the process does meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets a share of the features to zero in training, and scales the others up.

    ``torch.nn.Dropout`` draws from the one generator of the process, which trainings side by side would share.

    Args:
        share: Of the features, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, of any shape, some of them zero while it trains."""
        if not self.training or self.share == 0:
            return features
        kept = 1 - self.share
        mask = torch.empty_like(features).bernoulli_(kept, generator=self.generator).div_(kept)
        return features * mask
