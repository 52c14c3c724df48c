"""FFF, the frame feature fusion: from the maps F_TDM of all frames to one vector F_FFF for each."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

_KERNEL = 3
_STRIDE = 2


class FrameFeatureFusion(nn.Module):
    """FFF: concat F_TDM over the frames -> conv -> flatten -> F_FFF, read out per frame.

    The convolution runs over the places of the concatenated frames, with one set of weights for all of them, so that
    any number of frames will do; how frames follow each other is for TDM and TCAB to see.

    Switched off, F_FFF is a linear map of the mean over the places.

    Args:
        channels: Of F_TDM.
        grid: (h, w) of F_TDM.
        width: Channels of the convolution.
        enabled: False for the ablation.
    """

    def __init__(self, channels: int, grid: tuple[int, int], width: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        if enabled:
            self.conv = nn.Conv2d(channels, width, _KERNEL, stride=_STRIDE, padding=_KERNEL // 2)
            self.width = width * math.prod(math.ceil(side / _STRIDE) for side in grid)
        else:
            self.project = nn.Linear(channels, width)
            self.width = width

    def forward(self, differences: Tensor) -> Tensor:
        """Return F_FFF.

        Args:
            differences: (B, F, channels, h, w) float, F_TDM.

        Returns:
            (B, F, self.width) float.
        """
        if not self.enabled:
            return self.project(differences.mean((-2, -1)))  # type: ignore[no-any-return]
        frames = differences.flatten(0, 1)
        return F.gelu(self.conv(frames)).flatten(1).reshape(*differences.shape[:2], self.width)
