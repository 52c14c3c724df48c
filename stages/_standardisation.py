"""Standardisation of the regressor's inputs, with statistics of the training part that are put together per video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffvqa.stages._stored_product import stored_linear

_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class ChannelMoments:
    """Moments of each of C channels over some places; those of several videos combine exactly.

    Attributes:
        count: Values per channel.
        mean: (C,) float64.
        variance: (C,) float64, population.
    """

    count: int
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, rows: Tensor, channels: int) -> ChannelMoments:
        """Return the moments of (..., P, C s s), blocks of ``channels`` channels, over all but the channels."""
        values = rows.reshape(-1, channels, rows.shape[-1] // channels).float()
        mean = values.mean((0, 2))
        variance = values.sub_(mean[:, None]).square_().mean((0, 2))
        return cls(values[:, 0].numel(), mean.double(), variance.double())

    @classmethod
    def combined(cls, moments: Sequence[ChannelMoments]) -> ChannelMoments:
        """Return the moments of all the places together (Chan et al., 1979)."""
        counts = torch.tensor([each.count for each in moments], dtype=torch.float64)
        shares = (counts / counts.sum())[:, None]
        means = torch.stack([each.mean for each in moments])
        mean = (shares * means).sum(0)
        variance = (shares * (torch.stack([each.variance for each in moments]) + (means - mean) ** 2)).sum(0)
        return cls(int(counts.sum()), mean, variance)


class Standardisation(nn.Module):
    """Brings each channel to mean 0 and standard deviation 1 with statistics that are stored, not learned.

    The standardised values are never made: whatever projects them takes weights that do it on the way.

    Args:
        channels: C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set(self, moments: ChannelMoments) -> None:
        """Take over the statistics; a channel that never varies is only centred."""
        std = moments.variance.sqrt()
        self.mean.copy_(moments.mean)
        self.std.copy_(torch.where(std < _SMALLEST_STD, torch.ones_like(std), std))

    def project(self, rows: Tensor, linear: nn.Linear) -> Tensor:
        """Return ``linear((rows - mean) / std)``.

        Args:
            rows: (..., C n) as stored, n values of each channel side by side; without a gradient.
            linear: From C n values.

        Returns:
            (..., width) float.
        """
        repeats = linear.in_features // len(self.mean)
        weight = linear.weight / self.std.repeat_interleave(repeats)
        shift = weight @ self.mean.repeat_interleave(repeats)
        bias = -shift if linear.bias is None else linear.bias - shift
        return stored_linear(rows, weight, bias)
