"""The texture of a latent: how the values of small patches go together, whatever the picture shows.

The paper reads F_Latent by convolutions alone. What they have to learn, the second-order statistics of its patches, is
given to the regressor here at once: natural pictures have covariances of a typical form, and blur, noise and
compression change it. The logarithm makes distances of such matrices those of vectors (the log-Euclidean metric of
Arsigny et al., 2006, "Log-Euclidean metrics for fast and simple calculus on diffusion tensors").
"""

from __future__ import annotations

import math

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


def latent_texture(latent: Tensor) -> Tensor:
    """Return the logarithm of the covariance of each latent's patches.

    Args:
        latent: (..., C, h, w), any float.

    Returns:
        (..., D) float16, D of :func:`texture_size`: the upper triangle, row by row, what lies off the diagonal times
        the square root of two, so that distances are those of the matrices.
    """
    *leading, channels, height, width = latent.shape
    maps = latent.reshape(-1, channels, height, width).float()
    patches = cut_into_blocks(maps, texture_patch((channels, height, width)))
    patches = patches - patches.mean(dim=1, keepdim=True)
    covariance = patches.mT @ patches / patches.shape[1]
    values = patches.shape[2]
    variances, directions = torch.linalg.eigh(covariance + _FLOOR * torch.eye(values))
    # Rounding can leave an eigenvalue under the floor, which none has exactly.
    logarithm = (directions * variances.clamp_min(_FLOOR).log().unsqueeze(1)) @ directions.mT
    rows, columns = torch.triu_indices(values, values)
    weights = torch.where(rows == columns, 1.0, math.sqrt(2.0))
    texture: Tensor = (logarithm[:, rows, columns] * weights).half().reshape(*leading, -1)
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
        """Return (B, F, width) float of textures (B, F, size), as :func:`latent_texture` gives them."""
        summary: Tensor = F.gelu(self.standardise.project(texture, self.summarise))
        return summary
