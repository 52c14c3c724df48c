"""Between pixels and latents, without loss: the autoencoder of the ``nano`` model."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor
from torch.nn import functional as F


class PixelUnshuffleAutoencoder(ConfigMixin):  # type: ignore[misc]  # untyped base
    """Folds each ``block_size`` x ``block_size`` block of pixels into channels; nothing is learned, nothing is lost.

    Args:
        block_size: Side of the block, in pixels; the latent's grid is that much coarser than the frame's.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, block_size: int = 4) -> None:
        self.block_size = block_size

    @property
    def latent_channels(self) -> int:
        """Number of channels of a latent."""
        return 3 * self.block_size**2

    def encode(self, frames: Tensor) -> Tensor:
        """Return the latents z_0 = E(frame).

        Args:
            frames: (B, 3, H, W), float, RGB in [-1, 1]; H and W are multiples of the block size.

        Returns:
            (B, 3 b^2, H / b, W / b), the same dtype and range.
        """
        return F.pixel_unshuffle(frames, self.block_size)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the frames D(z), the exact inverse of :meth:`encode`.

        Args:
            latents: (B, 3 b^2, h, w), float.

        Returns:
            (B, 3, h b, w b), the same dtype.
        """
        return F.pixel_shuffle(latents, self.block_size)


def to_model_range(pixels: Tensor) -> Tensor:
    """Map uint8 RGB in 0..255 to float32 in [-1, 1], any shape."""
    return pixels.to(torch.float32) / 127.5 - 1.0
