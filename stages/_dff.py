"""DFF, the diffusion feature fusion: one map F_DFF of a frame's two diffusion features."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffvqa.stages._attention import ChannelAttention, SpatialAttention
from diffvqa.stages._standardisation import Standardisation
from diffvqa.stages._training_data import BranchShape


class DiffusionFeatureFusion(nn.Module):
    """DFF: F_MS adjusted -> concat with F_Latent -> conv -> channel attention -> spatial attention -> F_DFF.

    The adjustment is a 1 x 1 convolution, which brings F_MS to a width, and a repetition over the latent's grid. The
    convolution's stride equals its kernel and F_MS is constant within one such block, so that the convolution over the
    concatenation is computed as the sum of one over F_Latent and one, on the far smaller grid of blocks, over F_MS.
    Both, and the adjustment, are linear maps of values that lie side by side. F_DFF has a grid of about 8 x 8 whatever
    the latent's is.

    Switched off, F_DFF is a linear map of both features at each place, without attention. Features without a latent
    are fused from F_MS alone, on its own grid.

    Args:
        shape: Of the branch's features.
        width: Channels of F_DFF.
        enabled: False for the ablation.
    """

    def __init__(self, shape: BranchShape, width: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.grid, self.multiscale_grid = shape.grid, shape.multiscale[1:]
        self.values = shape.block_side**2
        self.standardise_multiscale = Standardisation(shape.multiscale[0])
        self.has_latent = shape.latent is not None
        channels = shape.latent[0] if shape.latent else 0
        if self.has_latent:
            self.standardise_latent = Standardisation(channels)
        bias = not self.has_latent  # one is enough
        if not enabled:
            if self.has_latent:
                self.project_latent = nn.Linear(channels, width)
            self.project_multiscale = nn.Linear(shape.multiscale[0], width, bias=bias)
            return
        # F_MS has many times the channels of Stable Diffusion's latent: to adjust it to those 4 would lose nearly all.
        adjusted = max(channels, width)
        self.adjust = nn.Linear(shape.multiscale[0], adjusted)
        if self.has_latent:
            self.conv_latent = nn.Linear(channels * self.values, width)
        self.conv_multiscale = nn.Linear(adjusted, width, bias=bias)
        self.channel_attention = ChannelAttention(width)
        self.spatial_attention = SpatialAttention()

    def forward(self, latent: Tensor | None, multiscale: Tensor) -> Tensor:
        """Return F_DFF.

        Args:
            latent: (N, P, C s s) float, F_Latent in blocks; None where the features have none.
            multiscale: (N, g g, Cm) float, F_MS.

        Returns:
            (N, width, h', w') float.
        """
        if not self.enabled:
            projected = self._on_blocks(self.standardise_multiscale.project(multiscale, self.project_multiscale))
            if latent is not None:
                means = latent.reshape(*latent.shape[:2], -1, self.values).float().mean(-1)
                projected = self.standardise_latent.project(means, self.project_latent) + projected
            return _as_maps(projected, self.grid)
        adjusted = F.gelu(self.standardise_multiscale.project(multiscale, self.adjust))
        fused = self.conv_multiscale(self._on_blocks(adjusted))
        if latent is not None:
            fused = self.standardise_latent.project(latent, self.conv_latent) + fused
        fused = _as_maps(F.gelu(fused), self.grid)
        fused = fused * self.channel_attention(fused)
        attended: Tensor = fused * self.spatial_attention(fused)
        return attended

    def _on_blocks(self, rows: Tensor) -> Tensor:
        """Bring (N, g g, channels) to the grid of blocks, (N, P, channels)."""
        if self.multiscale_grid == self.grid:
            return rows
        maps = _as_maps(rows, self.multiscale_grid)
        return F.interpolate(maps, self.grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def _as_maps(rows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (N, places, channels) as (N, channels, height, width)."""
    return rows.transpose(1, 2).reshape(len(rows), -1, *grid)
