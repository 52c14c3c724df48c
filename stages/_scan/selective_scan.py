"""The selective scan of a Mamba block by the fastest way there is on this machine, and which way that is.

Three ways agree to rounding: mamba-ssm's fused kernel on CUDA, numba kernels on a CPU, and plain PyTorch anywhere.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from diffvqa.stages._scan import cpu, cuda, reference
from diffvqa.stages._scan.inputs import ConvInputs, ScanInputs


class ScanPath(enum.StrEnum):
    """A way to run the scan."""

    CUDA = "mamba-ssm"
    CPU = "numba"
    REFERENCE = "pytorch"


@dataclass(frozen=True)
class ScanChoice:
    """The way the scan runs, and why that one.

    Attributes:
        path: The way.
        reason: Why, as a part of a sentence.
    """

    path: ScanPath
    reason: str

    def __str__(self) -> str:
        return f"selective scan by {self.path}: {self.reason}"


def choose_scan(device: torch.device, dtype: torch.dtype = torch.float32) -> ScanChoice:
    """Return how a scan on this device runs; the first call for a CPU compiles the kernels or loads them.

    Args:
        device: Where the tensors are.
        dtype: Of the weights and tokens; below float32 the sums are still taken in float32.
    """
    if dtype == torch.float64:
        return ScanChoice(ScanPath.REFERENCE, "float64 is for plain PyTorch alone")
    if device.type == "cuda":
        return _choose_on_cuda()
    if device.type == "cpu":
        return _choose_on_cpu()
    return ScanChoice(ScanPath.REFERENCE, f"there is no kernel for the device type '{device.type}'")


def convolve(choice: ScanChoice, inputs: ConvInputs) -> Tensor:
    """Return SiLU of each direction's causal depthwise convolution.

    Args:
        choice: How.
        inputs: What goes in.

    Returns:
        (G, N, L, E) of the type of ``x``, in the order of time; what stands at padding is of no use.
    """
    return cpu.convolve(inputs) if choice.path is ScanPath.CPU else reference.convolve(inputs)


def selective_scan(choice: ScanChoice, inputs: ScanInputs) -> Tensor:
    """Return the gated sum over the directions of their selective scans.

    Args:
        choice: How.
        inputs: What goes in.

    Returns:
        (N, L, E) of the type of ``u``, in the order of time, 0 at padding.
    """
    if choice.path is ScanPath.CUDA:
        return cuda.selective_scan(cuda.load_fused_scan(), inputs)
    if choice.path is ScanPath.CPU:
        return cpu.selective_scan(inputs)
    return reference.selective_scan(inputs)


@functools.cache
def _choose_on_cuda() -> ScanChoice:
    try:
        cuda.load_fused_scan()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # as many ways as binaries can mismatch
        return ScanChoice(ScanPath.REFERENCE, f"mamba-ssm's kernel cannot be imported ({error}); see docs/mamba.md")
    return ScanChoice(ScanPath.CUDA, "its fused kernel is installed")


@functools.cache
def _choose_on_cpu() -> ScanChoice:
    try:
        cpu.load_kernels()
    except cpu.KernelsUnavailableError as error:
        return ScanChoice(ScanPath.REFERENCE, str(error))
    return ScanChoice(ScanPath.CPU, "its kernels are compiled for this CPU")
