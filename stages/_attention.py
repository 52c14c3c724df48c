"""The two attentions of CBAM (Woo et al., "CBAM: Convolutional Block Attention Module", 2018), used by DFF."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHANNEL_REDUCTION = 4
_SPATIAL_KERNEL = 7


class ChannelAttention(nn.Module):
    """Channel attention: sigmoid(MLP(mean over the grid) + MLP(maximum over the grid)).

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
    """Spatial attention: sigmoid(conv(mean and maximum over the channels))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, _SPATIAL_KERNEL, padding=_SPATIAL_KERNEL // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the factor of each place, (N, 1, h, w) in (0, 1), for maps (N, width, h, w)."""
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))
