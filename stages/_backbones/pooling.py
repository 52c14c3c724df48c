"""Feature maps of any size brought to one grid: the mean of each cell, and its standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from diffvqa.stages._backbones.interface import Level


def pool_to_grid(maps: Sequence[Tensor], grid: int, *, with_std: bool) -> Tensor:
    """Return the maps on one grid, one after the other: first all means, then all standard deviations.

    Args:
        maps: Each (B, C_i, h_i, w_i), any float; summed up in float32 whatever they are.
        grid: Side g of the grid, in cells.
        with_std: Whether to add each cell's standard deviation (population).

    Returns:
        (B, sum of C_i, g, g) float32, or twice as many channels with the deviations.
    """
    exact = [level.float() for level in maps]
    means = [F.adaptive_avg_pool2d(level, grid) for level in exact]
    if not with_std:
        return torch.cat(means, dim=1)
    squares = [F.adaptive_avg_pool2d(level.square(), grid) for level in exact]
    deviations = [(square - mean.square()).clamp_(min=0).sqrt() for square, mean in zip(squares, means, strict=True)]
    return torch.cat([*means, *deviations], dim=1)


def pooled_levels(maps: Sequence[Level], *, with_std: bool) -> tuple[Level, ...]:
    """Return what the channels of :func:`pool_to_grid` are, given the names and widths of the maps."""
    statistics = ("mean", "std") if with_std else ("mean",)
    return tuple(Level(f"{level.name}/{statistic}", level.channels) for statistic in statistics for level in maps)
