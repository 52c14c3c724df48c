"""How far two rows are apart: both on the same photographs, so that what is hard for either cancels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diffvqa.stages._bootstrap import Interval
from diffvqa.stages._metrics import pearson_correlation, spearman_correlation

from .rows import Row

COMPARED = (
    ("nano", "random"),
    ("nano", "brisque"),
    ("nano", "efficientnet-lite0"),
    ("nano+efficientnet-lite0", "efficientnet-lite0"),
    ("nano, without texture", "random, without texture"),
    ("nano+efficientnet-lite0, without texture", "efficientnet-lite0"),
)
"""Which features are compared with which."""

_RESAMPLES = 1000
_LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """What one row has more than another.

    Attributes:
        value: Of the correlation with the scores.
        interval: 95 %, percentiles of the bootstrap over photographs, the same drawn for both rows.
    """

    value: float
    interval: Interval


def srcc_difference(true: Sequence[float], one: Sequence[float], other: Sequence[float]) -> Difference:
    """Return how much better ``one`` ranks than ``other``, by Spearman's correlation; (n,) each."""
    return _difference(spearman_correlation, true, one, other)


def plcc_difference(true: Sequence[float], one: Sequence[float], other: Sequence[float]) -> Difference:
    """Return how much better ``one`` predicts than ``other``, by Pearson's correlation; (n,) each."""
    return _difference(pearson_correlation, true, one, other)


def pairs_among(rows: Sequence[Row]) -> tuple[tuple[Row, Row], ...]:
    """Return those of the rows that are to be compared: by the same regressor, and all on the same photographs."""
    known = {(row.name, row.regressor): row for row in rows}
    regressors = dict.fromkeys(row.regressor for row in rows)
    wanted = (((one, each), (other, each)) for each in regressors for one, other in COMPARED)
    return tuple((known[one], known[other]) for one, other in wanted if one in known and other in known)


def _difference(
    correlation: Callable[[Sequence[float], Sequence[float]], float],
    true: Sequence[float],
    one: Sequence[float],
    other: Sequence[float],
) -> Difference:
    def statistic(y: Sequence[float], x: Sequence[float], z: Sequence[float]) -> float:
        return correlation(y, x) - correlation(y, z)

    ends = stats.bootstrap(
        (true, one, other),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Difference(statistic(true, one, other), Interval(float(ends.low), float(ends.high)))
