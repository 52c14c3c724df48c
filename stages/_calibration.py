"""From a regressor's raw scores to the scale of a data set's labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Calibration:
    """A line: score = slope x raw + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def fitted(cls, raw: ArrayLike, true: ArrayLike) -> Calibration:
        """Return the least-squares line from raw scores to true ones, both (n,); level where the raw are constant."""
        x, y = np.asarray(raw, np.float64), np.asarray(true, np.float64)
        centred = x - x.mean()
        spread = float(np.sum(centred**2))
        slope = float(np.sum(centred * (y - y.mean()))) / spread if spread > 0.0 else 0.0
        return cls(slope, float(y.mean() - slope * x.mean()))

    def __call__(self, raw: float) -> float:
        """Return the score on the label scale."""
        return self.slope * raw + self.intercept
