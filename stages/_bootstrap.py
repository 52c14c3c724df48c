"""Confidence intervals of the metrics, by the bootstrap over videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffvqa.stages._metrics import FIGURES, as_vectors, figures_of, fitted_predictions


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN where it is undefined."""

    low: float
    high: float


def bootstrap_intervals(
    true: ArrayLike, predicted: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Return the percentile interval of each figure of :class:`~diffvqa.stages._metrics.Metrics` (Efron, 1979).

    Videos are drawn with replacement. The logistic is fitted once, to all of them, and kept for every resample.
    Resamples in which a figure is undefined, which only tiny sets have, are left out.

    Args:
        true: (n,) the MOS.
        predicted: (n,) the predictions.
        resamples: How many; with 0 there are no intervals.
        level: Share of the resamples inside the interval, in (0, 1).
        seed: Of the drawing.

    Raises:
        ValueError: The two differ in length or are not one-dimensional.
    """
    y, x = as_vectors(true, predicted)
    if resamples == 0:
        return {}
    fitted = fitted_predictions(y, x)
    draws = np.random.default_rng(seed).integers(0, max(len(y), 1), (resamples, len(y)))
    figures = np.array([figures_of(y[draw], x[draw], None if fitted is None else fitted[draw]) for draw in draws])
    low, high = (1 - level) / 2, (1 + level) / 2
    intervals = {}
    for name, values in zip(FIGURES, figures.T, strict=True):
        defined = values[np.isfinite(values)]
        ends = np.quantile(defined, (low, high)) if len(defined) else (np.nan, np.nan)
        intervals[name] = Interval(float(ends[0]), float(ends[1]))
    return intervals
