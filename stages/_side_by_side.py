"""A frame, its reconstruction and where the two differ, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GAP = 4
_ERROR_GAIN = 4


def error_map(reconstruction: NDArray[np.uint8], frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return |reconstruction - frame| of each colour, four times as bright: (H, W, 3) uint8, black where they agree."""
    error = np.abs(reconstruction.astype(np.int16) - frame) * _ERROR_GAIN
    return np.asarray(error.clip(0, 255), dtype=np.uint8)


def side_by_side(frame: NDArray[np.uint8], reconstruction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frame, reconstruction and error map in a row, (H, 3 W + gaps, 3) uint8, white between them."""
    gap = np.full((frame.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([frame, gap, reconstruction, gap, error_map(reconstruction, frame)], axis=1)


def picture_grid(rows: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return :func:`side_by_side` of each (frame, reconstruction), one below the other; all of one size."""
    lines = [side_by_side(frame, reconstruction) for frame, reconstruction in rows]
    gap = np.full((_GAP, lines[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for line in lines for part in (gap, line)][1:])
