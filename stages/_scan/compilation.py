"""Compilation of the numba kernels, once, for one type of each argument."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import boolean, float32, intp, void

from diffvqa.stages._scan.conv_kernels import convolve_backward, convolve_forward
from diffvqa.stages._scan.rows import CHUNK
from diffvqa.stages._scan.scan_kernels import scan_backward, scan_forward

_RANGE = (intp, intp, intp)
_FLAGS, _MASK = boolean[::1], boolean[:, ::1]
_F2, _F3, _F4, _F5 = float32[:, ::1], float32[:, :, ::1], float32[:, :, :, ::1], float32[:, :, :, :, ::1]
_VIEW_3, _VIEW_4 = float32[:, :, :], float32[:, :, :, :]  # parts of a projection, of any strides

_CONV_INPUTS = (*_RANGE, _VIEW_3, _MASK, _F3, _F2, _FLAGS)
_SCAN_INPUTS = (*_RANGE, _F4, _F4, _F3, _VIEW_4, _VIEW_4, _F2, _VIEW_3, _F2, _MASK, _FLAGS, _F5, _F3)


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels, and how many time steps the scan keeps one state for."""

    convolve_forward: Callable[..., None]
    convolve_backward: Callable[..., None]
    scan_forward: Callable[..., None]
    scan_backward: Callable[..., None]
    chunk: int


def compile_kernels() -> Kernels:
    """Compile every kernel, or load it from numba's cache.

    Raises:
        RuntimeError: numba's compiler is switched off.
        numba.core.errors.NumbaError: numba cannot compile them.
    """
    if not hasattr(scan_forward, "compile"):
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    return Kernels(
        convolve_forward=_compile(convolve_forward, *_CONV_INPUTS, _F4),
        convolve_backward=_compile(convolve_backward, *_CONV_INPUTS, _F4, _F3, _F4, _F3),
        scan_forward=_compile(scan_forward, *_SCAN_INPUTS, _F3),
        scan_backward=_compile(scan_backward, *_SCAN_INPUTS, _F3, _F4, _F4, _F4, _F5, _F5, _F3, _F3, _F3),
        chunk=CHUNK,
    )


def _compile(kernel: Any, *types: Any) -> Any:
    # Where no folder for the cache can be written to, every process compiles for itself.
    with contextlib.suppress(RuntimeError):
        kernel.enable_caching()
    kernel.compile(void(*types))
    return kernel
