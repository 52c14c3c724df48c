"""DFF, the diffusion feature fusion: one map F_DFF of a frame's two diffusion features."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffvqa.stages.attention import ChannelAttention, SpatialAttention
from diffvqa.stages.standardisation import Standardisation
from diffvqa.stages.training_data import BranchShape

_FUSED_GRID = 8


class DiffusionFeatureFusion(nn.Module):
    """DFF: F_MS adjusted -> concat with F_Latent -> conv -> channel attention -> spatial attention -> F_DFF.

    The adjustment is a 1 x 1 convolution, which brings F_MS to a width, and a repetition over the latent's grid. The
    convolution's stride equals its kernel and F_MS is constant within one such block, so that the convolution over the
    concatenation is computed as the sum of one over F_Latent and one, on the far smaller grid of blocks, over F_MS.
    F_DFF has a grid of about 8 x 8 whatever the latent's is.

    Switched off, F_DFF is a linear map of both features at each place, without attention. Features without a latent
    are fused from F_MS alone, on its own grid.

    Args:
        shape: Of the branch's features.
        width: Channels of F_DFF.
        enabled: False for the ablation.
    """

    def __init__(self, shape: BranchShape, width: int, *, enabled: bool = True) -> None:
        super().__init__()
        channels, height, breadth = shape.latent or (0, *shape.multiscale[1:])
        self.stride = max(1, min(height, breadth) // _FUSED_GRID)
        self.enabled = enabled
        self.grid = (height // self.stride, breadth // self.stride)
        self.standardise_multiscale = Standardisation(shape.multiscale[0])
        self.has_latent = shape.latent is not None
        if self.has_latent:
            self.standardise_latent = Standardisation(channels)
        bias = not self.has_latent  # one is enough
        if not enabled:
            if self.has_latent:
                self.project_latent = nn.Conv2d(channels, width, kernel_size=1)
            self.project_multiscale = nn.Conv2d(shape.multiscale[0], width, kernel_size=1, bias=bias)
            return
        # F_MS has many times the channels of Stable Diffusion's latent: to adjust it to those 4 would lose nearly all.
        adjusted = max(channels, width)
        self.adjust = nn.Conv2d(shape.multiscale[0], adjusted, kernel_size=1)
        if self.has_latent:
            self.conv_latent = nn.Conv2d(channels, width, kernel_size=self.stride, stride=self.stride)
        self.conv_multiscale = nn.Conv2d(adjusted, width, kernel_size=1, bias=bias)
        self.channel_attention = ChannelAttention(width)
        self.spatial_attention = SpatialAttention()

    def forward(self, latent: Tensor | None, multiscale: Tensor) -> Tensor:
        """Return F_DFF.

        Args:
            latent: (N, C, h, w) float, F_Latent; None where the features have none.
            multiscale: (N, Cm, g, g) float, F_MS.

        Returns:
            (N, width, h', w') float.
        """
        if not self.enabled:
            projected = self._on_blocks(self.standardise_multiscale.convolve(multiscale, self.project_multiscale))
            if latent is None:
                return projected
            blocks = F.avg_pool2d(latent.to(self.standardise_latent.std.dtype), self.stride)
            return self.standardise_latent.convolve(blocks, self.project_latent) + projected
        adjusted = F.gelu(self.standardise_multiscale.convolve(multiscale, self.adjust))
        fused = self.conv_multiscale(self._on_blocks(adjusted))
        if latent is not None:
            fused = self.standardise_latent.convolve(latent, self.conv_latent) + fused
        fused = F.gelu(fused)
        fused = fused * self.channel_attention(fused)
        attended: Tensor = fused * self.spatial_attention(fused)
        return attended

    def _on_blocks(self, multiscale: Tensor) -> Tensor:
        """Bring maps to the grid of blocks, (N, channels, h', w')."""
        if multiscale.shape[-2:] == self.grid:
            return multiscale
        return F.interpolate(multiscale, self.grid, mode="bilinear", align_corners=False)
