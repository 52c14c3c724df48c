"""Between pixels and latents: nothing learned in the ``nano`` model, a variational autoencoder in Stable Diffusion."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor
from torch.nn import functional as F


class Autoencoder(Protocol):
    """What the diffusion model asks of either kind."""

    @property
    def block_size(self) -> int:
        """Side of the block of pixels that one cell of the latent's grid stands for."""

    @property
    def latent_channels(self) -> int:
        """Number of channels of a latent."""

    @property
    def network(self) -> Any:
        """What holds its configuration and, if anything was learned, its weights."""

    def encode(self, frames: Tensor) -> Tensor:
        """Return the latents z_0 = E(frame), always the same for the same frames.

        Args:
            frames: (B, 3, H, W) float, RGB in [-1, 1]; H and W are multiples of the block size.

        Returns:
            (B, C, H / b, W / b) float, on the scale that the U-Net was trained with.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Return the frames D(z).

        Args:
            latents: (B, C, h, w) float, on the scale of :meth:`encode`.

        Returns:
            (B, 3, h b, w b) float, RGB about [-1, 1], not clipped.
        """

    def to(self, device: torch.device) -> Any:
        """Move what it has learned, if anything, to ``device``, in place."""


class PixelUnshuffleAutoencoder(ConfigMixin):  # type: ignore[misc]  # untyped base
    """Folds each ``block_size`` x ``block_size`` block of pixels into channels; nothing is learned, nothing is lost.

    Args:
        block_size: Side of the block, in pixels; the latent's grid is that much coarser than the frame's.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, block_size: int = 4) -> None:
        self._block_size = block_size

    @property
    def block_size(self) -> int:
        """Side of the block."""
        return self._block_size

    @property
    def latent_channels(self) -> int:
        """Number of channels of a latent."""
        return 3 * self.block_size**2

    @property
    def network(self) -> PixelUnshuffleAutoencoder:
        """Itself: it has a configuration and no weights."""
        return self

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

    def to(self, device: torch.device) -> PixelUnshuffleAutoencoder:  # noqa: ARG002  # there is nothing to move
        """Return itself: it has no weights."""
        return self


class StableDiffusionAutoencoder:
    """Stable Diffusion's variational autoencoder, made deterministic: a latent is its posterior's mean.

    Args:
        network: diffusers' ``AutoencoderKL``.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    @property
    def network(self) -> Any:
        """Diffusers' ``AutoencoderKL``."""
        return self._network

    @property
    def block_size(self) -> int:
        """Pixels per latent cell and side: 8 for Stable Diffusion."""
        return int(2 ** (len(self.network.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """Number of channels of a latent: 4 for Stable Diffusion."""
        return int(self.network.config.latent_channels)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the latents z_0: the posterior's mean times the scaling factor.

        Args:
            frames: (B, 3, H, W), float, RGB in [-1, 1]; H and W are multiples of the block size.

        Returns:
            (B, C, H / b, W / b), of about unit variance.
        """
        latents: Tensor = self.network.encode(frames).latent_dist.mode() * self.network.config.scaling_factor
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Return the frames D(z).

        Args:
            latents: (B, C, h, w), float, on the scale of :meth:`encode`.

        Returns:
            (B, 3, h b, w b), RGB about [-1, 1], not clipped.
        """
        frames: Tensor = self.network.decode(latents / self.network.config.scaling_factor).sample
        return frames

    def to(self, device: torch.device) -> StableDiffusionAutoencoder:
        """Move the network to ``device``, in place."""
        self.network.to(device)
        return self


def to_model_range(pixels: Tensor) -> Tensor:
    """Map uint8 RGB in 0..255 to float32 in [-1, 1], any shape."""
    return pixels.to(torch.float32) / 127.5 - 1.0
