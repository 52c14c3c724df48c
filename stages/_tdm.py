"""TDM, the temporal difference module: what changed since the frame before."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TemporalDifference(nn.Module):
    """TDM: puts beside each frame's F_DFF its difference from the frame before.

    Switched off, F_TDM is F_DFF.

    Args:
        width: Channels of F_DFF.
        enabled: False for the ablation.
    """

    def __init__(self, width: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.channels = 2 * width if enabled else width

    def forward(self, fused: Tensor) -> Tensor:
        """Return F_TDM = concat(F_DFF at t, F_DFF at t minus F_DFF at t-1).

        Args:
            fused: (B, F, W, h, w) float, F_DFF.

        Returns:
            (B, F, channels, h, w) float; the difference of the first frame is zero.
        """
        if not self.enabled:
            return fused
        return torch.cat([fused, torch.diff(fused, dim=1, prepend=fused[:, :1])], dim=2)
