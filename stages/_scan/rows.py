"""Moves between an array over all times and channels and a small one of a chunk's rows and a block's channels.

The innermost loops of the kernels run over such small contiguous arrays alone: indices into the large ones, with their
offsets, keep LLVM from using vector instructions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages._scan.vector_math import compiled

CHUNK = 16
"""Time steps that are worked on at a time; the scan keeps one state for each chunk."""

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@compiled
def gather(
    source: FloatArray,
    start: int,
    begin: int,
    end: int,
    against: bool,
    valid: BoolArray,
    missing: np.float32,
    rows: FloatArray,
) -> None:
    """Copy steps of a direction into rows (at least end - begin, width).

    Args:
        source: (L, E).
        start: First channel.
        begin: First step, in the order in which the direction reads; may be negative, before the first token.
        end: After the last step.
        against: Whether the direction runs against time.
        valid: (L,) False for padding.
        missing: What to put for padding and before the first token.
        rows: Receives the channels start to start + width.
    """
    for i in range(begin, end):
        t = len(valid) - 1 - i if against else i
        if i >= 0 and valid[t]:
            row = source[t, start : start + rows.shape[1]]
            for j in range(rows.shape[1]):
                rows[i - begin, j] = row[j]
        else:
            for j in range(rows.shape[1]):
                rows[i - begin, j] = missing


@compiled
def scatter(
    rows: FloatArray,
    begin: int,
    end: int,
    against: bool,
    valid: BoolArray,
    add: bool,
    target: FloatArray,
    start: int,
) -> None:
    """Put the rows, or add them, where :func:`gather` would take them from; padding stays as it is."""
    for i in range(begin, end):
        t = len(valid) - 1 - i if against else i
        if i >= 0 and valid[t]:
            row = target[t, start : start + rows.shape[1]]
            if add:
                for j in range(rows.shape[1]):
                    row[j] += rows[i - begin, j]
            else:
                for j in range(rows.shape[1]):
                    row[j] = rows[i - begin, j]


@compiled
def fill(rows: FloatArray, value: np.float32) -> None:
    """Set every element."""
    for s in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[s, j] = value


@compiled
def copy_out(rows: FloatArray, target: FloatArray, start: int) -> None:
    """Copy rows (S, width) to the channels from ``start`` on of target (S, E)."""
    for s in range(rows.shape[0]):
        row = target[s, start : start + rows.shape[1]]
        for j in range(rows.shape[1]):
            row[j] = rows[s, j]


@compiled
def copy_in(source: FloatArray, start: int, rows: FloatArray) -> None:
    """Copy the channels from ``start`` on of source (S, E) to rows (S, width)."""
    for s in range(rows.shape[0]):
        row = source[s, start : start + rows.shape[1]]
        for j in range(rows.shape[1]):
            rows[s, j] = row[j]


@compiled
def any_valid(valid: BoolArray, begin: int, end: int, against: bool) -> bool:
    """Tell whether any of the steps begin to end of a direction is not padding."""
    some = False
    for i in range(begin, end):
        some |= valid[len(valid) - 1 - i if against else i]
    return some
