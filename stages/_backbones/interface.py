"""What extraction asks of a network: features of a batch of views, with names, shapes and a fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Level:
    """Channels of ``multiscale`` that belong together.

    Attributes:
        name: Such as ``up_blocks.2/std``.
        channels: How many.
    """

    name: str
    channels: int


@dataclass(frozen=True)
class ViewFeatures:
    """Features of a batch of B views, on the backbone's device.

    Attributes:
        latent: (B, C, h, w) float, the reconstructed latents (F_Latent); None where the backbone has no latent.
        multiscale: (B, C_ms, g, g) float, feature maps brought to g x g, one level after the other (F_MS).
    """

    latent: Tensor | None
    multiscale: Tensor


class FeatureBackbone(Protocol):
    """One or more networks on a device, ready to turn views into features.

    What a view's features are depends on the view and on its seed alone; the views beside it in the batch may change
    them by no more than rounding.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """(C, h, w) of the latent of one view; None where there is no latent."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """What the channels of ``multiscale`` are, in their order; no two of one name."""
        ...

    @property
    def view_multiple(self) -> int:
        """A view's side must be a multiple of this many pixels."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Kind of each network, such as ``diffusion``, to the SHA-256 of its weights and configuration."""
        ...

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        """Return the features of some views, all in one call of the networks.

        Args:
            views: (B, S, S, 3) uint8 RGB, on the backbone's device.
            seeds: One per view; whatever is random about a view depends on its seed alone.

        Raises:
            torch.OutOfMemoryError: So many views do not fit the device's memory at once.
        """
        ...


def level_slices(levels: Sequence[Level]) -> dict[str, tuple[int, int]]:
    """Return level name -> (first channel, one past its last) in ``multiscale``."""
    slices, first = {}, 0
    for level in levels:
        slices[level.name] = (first, first + level.channels)
        first += level.channels
    return slices
