"""The texture of a latent: how the values of small patches go together, whatever the picture shows.

The paper reads F_Latent by convolutions alone. What they have to learn, the second-order statistics of its patches, is
given to the regressor here at once: natural pictures have covariances of a typical form, and blur, noise and
compression change it. The logarithm makes distances of such matrices those of vectors (the log-Euclidean metric of
Arsigny et al., 2006, "Log-Euclidean metrics for fast and simple calculus on diffusion tensors").

Noise is hidden where a picture is busy and seen where it is flat. So beside the texture of the whole there is that of
the flatter half: noise makes the two alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffvqa.stages._blocks import cut_into_blocks
from diffvqa.stages._standardisation import Standardisation

_MOST_VALUES = 64
# Added to every variance: about that of one grey level in 255, below which 8-bit pixels tell nothing.
_FLOOR = 1e-4


def texture_patch(latent: tuple[int, int, int]) -> int:
    """Return the side s, in places, of the patches that a texture is of.

    It is the largest power of two with C s s of at most 64 and no more values in a patch than there are patches.

    Args:
        latent: (C, h, w).
    """
    channels, height, width = latent

    def fits(side: int) -> bool:
        return channels * side**2 <= min(_MOST_VALUES, (height // side) * (width // side))

    side = 1
    while fits(2 * side):
        side *= 2
    return side


def texture_size(latent: tuple[int, int, int]) -> int:
    """Return how many numbers the texture of a latent of shape (C, h, w) has."""
    values = latent[0] * texture_patch(latent) ** 2
    return values * (values + 1) // 2


@dataclass(frozen=True)
class LatentTexture:
    """How the values of a latent's patches go together.

    Each is the upper triangle of a symmetric matrix, row by row, what lies off the diagonal times the square root of
    two, so that distances are those of the matrices.

    Attributes:
        whole: (..., D) float16, D of :func:`texture_size`: the logarithm of the covariance of all patches.
        flat: (..., D) float16: the same of the flatter half of the patches, less that of all.
    """

    whole: Tensor
    flat: Tensor

    @classmethod
    def of(cls, latent: Tensor) -> LatentTexture:
        """Return the textures of latents (..., C, h, w), any float."""
        *leading, channels, height, width = latent.shape
        side = texture_patch((channels, height, width))
        patches = cut_into_blocks(latent.reshape(-1, channels, height, width).float(), side)
        of_all = _log_covariance(patches)
        of_flat = _log_covariance(_flatter_half(patches, height // side, width // side))
        whole, flat = (each.half().reshape(*leading, -1) for each in (of_all, of_flat - of_all))
        return cls(whole, flat)

    @property
    def nbytes(self) -> int:
        """Bytes it takes up in memory."""
        return self.whole.nbytes + self.flat.nbytes


def _flatter_half(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Return the half of each latent's patches that differ least from their neighbours.

    Args:
        patches: (N, rows * columns, values) float32, row by row.
        rows: Of patches.
        columns: Likewise.
    """
    grid = patches.reshape(-1, rows, columns, patches.shape[-1])
    # The mean of the squared differences from those neighbours, of four, that there are.
    downwards, sideways = (grid.diff(dim=axis).square().sum(-1) for axis in (1, 2))
    differences, neighbours = (
        F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1)) + F.pad(side, (1, 0)) + F.pad(side, (0, 1))
        for down, side in ((downwards, sideways), (torch.ones_like(downwards), torch.ones_like(sideways)))
    )
    unevenness = (differences / neighbours.clamp_min(1)).flatten(1)
    flattest = unevenness.argsort(dim=1, stable=True)[:, : math.ceil(rows * columns / 2)]
    return patches.take_along_dim(flattest.unsqueeze(-1), dim=1)


def _log_covariance(patches: Tensor) -> Tensor:
    """Return (N, D) float32 of patches (N, P, values), laid out as in :class:`LatentTexture`."""
    patches = patches - patches.mean(dim=1, keepdim=True)
    covariance = patches.mT @ patches / patches.shape[1]
    values = patches.shape[2]
    variances, directions = torch.linalg.eigh(covariance + _FLOOR * torch.eye(values))
    # Rounding can leave an eigenvalue under the floor, which none has exactly.
    logarithm = (directions * variances.clamp_min(_FLOOR).log().unsqueeze(1)) @ directions.mT
    rows, columns = torch.triu_indices(values, values)
    weights = torch.where(rows == columns, 1.0, math.sqrt(2.0))
    texture: Tensor = logarithm[:, rows, columns] * weights
    return texture


class TextureFusion(nn.Module):
    """A learned summary of each frame's texture.

    Args:
        size: Numbers of a texture.
        width: Of the summary.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.standardise = Standardisation(size)
        self.summarise = nn.Linear(size, width)

    def forward(self, texture: Tensor) -> Tensor:
        """Return (B, F, width) float of textures (B, F, size), of all patches."""
        summary: Tensor = F.gelu(self.standardise.project(texture, self.summarise))
        return summary
