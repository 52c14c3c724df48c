"""The selective scan by mamba-ssm's fused CUDA kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffvqa.stages._scan.inputs import ScanInputs

FusedScan = Callable[..., Tensor]
"""``mamba_ssm.ops.selective_scan_interface.selective_scan_fn``."""

# The kernel knows no mask. The softplus of this, whatever bias is added, is 0, and bfloat16 and float16 can hold it.
_NO_STEP = -1e4


def load_fused_scan() -> FusedScan:
    """Return the kernel's Python function.

    Raises:
        ImportError: mamba-ssm is not installed, or was built without its Mamba-1 kernel.
    """
    from mamba_ssm.ops import selective_scan_interface

    # The function is there whether or not the compiled kernel below it is.
    if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
        raise ImportError("mamba-ssm was built without selective_scan_cuda")
    fused: FusedScan = selective_scan_interface.selective_scan_fn
    return fused


def selective_scan(fused: FusedScan, inputs: ScanInputs) -> Tensor:
    """Run all directions in one call of the kernel, as groups of channels with a B and a C each.

    Args:
        fused: The kernel.
        inputs: On a CUDA device.

    Returns:
        (N, L, E), as :func:`diffvqa.stages._scan.reference.selective_scan`.
    """
    padding = ~inputs.mask.unsqueeze(-1)
    directions, sequences, length, channels = inputs.u.shape
    gate = inputs.gate.masked_fill(padding, 0.0).expand_as(inputs.u)
    gated = fused(
        _channels_first(inputs.u.masked_fill(padding, 0.0), inputs.reverse).flatten(1, 2),
        _channels_first(inputs.step.masked_fill(padding, _NO_STEP), inputs.reverse).flatten(1, 2).to(inputs.u.dtype),
        inputs.A.flatten(0, 1).float(),
        _channels_first(inputs.B.masked_fill(padding, 0.0), inputs.reverse).to(inputs.u.dtype),
        _channels_first(inputs.C.masked_fill(padding, 0.0), inputs.reverse).to(inputs.u.dtype),
        inputs.D.flatten().float(),
        z=_channels_first(gate, inputs.reverse).flatten(1, 2).to(inputs.u.dtype),
        delta_bias=inputs.step_bias.flatten().float(),
        delta_softplus=True,
    )
    outputs = gated.reshape(sequences, directions, channels, length).unbind(1)
    in_order = [part.flip(-1) if back else part for part, back in zip(outputs, inputs.reverse, strict=True)]
    return torch.stack(in_order).sum(0).transpose(1, 2)


def _channels_first(sequences: Tensor, reverse: tuple[bool, ...]) -> Tensor:
    """(G, N, L, X) to (N, G, X, L), in the order in which each direction reads."""
    parts = [part.flip(1) if back else part for part, back in zip(sequences, reverse, strict=True)]
    return torch.stack(parts, dim=1).transpose(2, 3).contiguous()
