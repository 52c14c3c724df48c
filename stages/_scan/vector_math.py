"""Exponentials that LLVM turns into vector instructions, for the kernels of the CPU path.

Neither ``math.exp`` nor ``numpy.exp`` is vectorised by numba unless Intel's own library is installed, and the
exponential is most of the work of a selective scan. These are polynomials and bit moves alone, right to about 2e-7
relative, and NaN goes in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np

_Function = TypeVar("_Function", bound=Callable[..., object])

# Sums may be reordered, which vectorising them needs. NaN and infinity keep their meaning: a broken loss must show.
_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}

LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)

# Adding this float to x leaves round(x) + 127, the exponent bits of 2^round(x), in the lowest bits of the sum.
_SHIFTER = np.float32(1.5 * 2**23 + 127)
_SHIFTER_BITS = _SHIFTER.view(np.int32)
_LEAST_EXPONENT = np.float32(-126.0)
_EXPONENT_PLACE = np.int32(23)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)

# Minimax in the relative error on [-1/2, 1/2], with 2^0 = 1 exactly: 9e-8.
_P1 = np.float32(0.69314698)
_P2 = np.float32(0.24022242)
_P3 = np.float32(0.05550734)
_P4 = np.float32(0.00967151)
_P5 = np.float32(0.00132647)

# atanh(s) / s in s^2 on [0, 1/9]: 4e-9.
_Q1 = np.float32(0.33333157)
_Q2 = np.float32(0.20012454)
_Q3 = np.float32(0.13980305)
_Q4 = np.float32(0.14089173)


def compiled(function: _Function) -> _Function:
    """Mark a function for numba; nothing is compiled before it is first called or its ``compile`` is."""
    return cast(_Function, numba.njit(nogil=True, fastmath=_FAST_MATH, error_model="numpy")(function))


@compiled
def exp2(x: np.float32) -> np.float32:
    """Return 2^x for x of at most 127; below -126 the result is 2^-126."""
    x = _LEAST_EXPONENT if x < _LEAST_EXPONENT else x
    bits = np.float32(x + _SHIFTER).view(np.int32)
    rest = x - np.float32(np.int32(bits - _SHIFTER_BITS))
    power: np.float32 = np.int32(bits << _EXPONENT_PLACE).view(np.float32)
    return power * (_ONE + rest * (_P1 + rest * (_P2 + rest * (_P3 + rest * (_P4 + rest * _P5)))))


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """Return 1 / (1 + e^-x)."""
    small = exp2(-abs(x) * LOG2_E)
    share = _ONE / (_ONE + small)
    return small * share if x < _ZERO else share


@compiled
def softplus(x: np.float32) -> np.float32:
    """Return log(1 + e^x), with a small relative error for very negative x too."""
    small = exp2(-abs(x) * LOG2_E)
    s = small / (_TWO + small)
    square = s * s
    log1p = _TWO * s * (_ONE + square * (_Q1 + square * (_Q2 + square * (_Q3 + square * _Q4))))
    return log1p if x < _ZERO else x + log1p
