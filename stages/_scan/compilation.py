"""Compilation of the numba kernels, once, for one type of each argument.

Code that a process has just compiled rounds otherwise than the same code loaded from numba's cache. So that the first
training on a machine gives the numbers of all later ones, a process of its own compiles, and all others load.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock
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

# Each with the types of its arguments.
_KERNELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "scan_backward": (scan_backward, (*_SCAN_INPUTS, _F3, _F4, _F4, _F4, _F5, _F5, _F3, _F3, _F3)),
    "scan_forward": (scan_forward, (*_SCAN_INPUTS, _F3)),
    "convolve_backward": (convolve_backward, (*_CONV_INPUTS, _F4, _F3, _F4, _F3)),
    "convolve_forward": (convolve_forward, (*_CONV_INPUTS, _F4)),
}
_COMPILERS = 2  # processes that compile side by side; each takes some seconds to begin with


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels, and how many time steps the scan keeps one state for."""

    convolve_forward: Callable[..., None]
    convolve_backward: Callable[..., None]
    scan_forward: Callable[..., None]
    scan_backward: Callable[..., None]
    chunk: int


def compiled_kernels() -> Kernels:
    """Load every kernel from numba's cache, into which another process compiles it where need be.

    Where no folder for the cache can be written to, or such a process fails, this one compiles for itself.

    Raises:
        RuntimeError: numba's compiler is switched off.
        numba.core.errors.NumbaError: numba cannot compile them.
    """
    if not hasattr(scan_forward, "compile"):
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    with contextlib.suppress(RuntimeError, OSError):
        _fill_cache()
    return load_kernels()


def load_kernels() -> Kernels:
    """Load every kernel from numba's cache, or compile it here.

    Raises:
        numba.core.errors.NumbaError: numba cannot compile them.
    """
    compile_kernels(_KERNELS)
    return Kernels(convolve_forward, convolve_backward, scan_forward, scan_backward, CHUNK)


def compile_kernels(names: Iterable[str]) -> None:
    """Load kernels of :data:`_KERNELS` from numba's cache, or compile them here.

    Raises:
        numba.core.errors.NumbaError: numba cannot compile them.
    """
    for kernel, types in (_KERNELS[name] for name in names):
        # Where no folder for the cache can be written to, every process compiles for itself.
        with contextlib.suppress(RuntimeError):
            kernel.enable_caching()
        kernel.compile(void(*types))


def _fill_cache() -> None:
    """Have other processes compile the kernels, unless one has done so for this numba and these sources.

    Raises:
        RuntimeError: There is no folder for the cache.
        OSError: It cannot be written to.
    """
    scan_forward.enable_caching()  # type: ignore[attr-defined]
    folder = Path(scan_forward.stats.cache_path)  # type: ignore[attr-defined]
    sources = sorted(Path(__file__).parent.glob("*.py"))
    made_of = [numba.__version__.encode(), *(source.read_bytes() for source in sources)]
    mark = folder / f"compiled-{hashlib.sha256(b''.join(made_of)).hexdigest()[:16]}"
    if mark.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Workers of a cluster begin side by side: one compiles, the others wait for it.
    with FileLock(folder / ".compiling.lock"):
        if mark.exists():
            return
        shares = [list(_KERNELS)[number::_COMPILERS] for number in range(_COMPILERS)]
        with ThreadPoolExecutor(_COMPILERS) as compilers:
            if all(compilers.map(_compiles_elsewhere, shares)):
                mark.touch()


def _compiles_elsewhere(names: list[str]) -> bool:
    program = f"from {__name__} import compile_kernels; compile_kernels({names!r})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
