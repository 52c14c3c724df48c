"""Linear maps of values in the precision that they are stored in: the first thing that is done to cached features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

# A piece as float32 stays in a core's share of the cache between being converted and being multiplied. Whole, each
# input went to memory and came back twice, which took longer than the products themselves.
_PIECE_BYTES = 2**21
_FLOAT_BYTES = 4


def stored_linear(stored: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``stored @ weight.T + bias``, with gradients for weight and bias alone.

    On a CPU the values become float32 piece by piece, forwards and again backwards, and no copy of them is kept; under
    autocast and on a GPU it is the ordinary product.

    Args:
        stored: (..., K) float16, float32 or uint8, without a gradient.
        weight: (N, K) float32.
        bias: (N,) float32.

    Returns:
        (..., N) float32; of autocast's dtype under autocast.
    """
    kind = stored.device.type
    if kind != "cpu" or torch.is_autocast_enabled(kind):
        return F.linear(stored.to(weight.dtype), weight, bias)
    rows = stored.flatten(0, -2)
    product: Tensor = _StoredLinear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]  # torch's own signature
    return product.reshape(*stored.shape[:-1], -1)


class _StoredLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, stored: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        product = torch.empty(len(stored), len(weight))
        columns = weight.t()
        for rows, values in _pieces(stored):
            torch.addmm(bias, values, columns, out=product[rows])
        ctx.save_for_backward(stored)
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        (stored,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = gradient.contiguous()
        of_weight = torch.zeros(gradient.shape[1], stored.shape[1])
        for rows, values in _pieces(stored):
            of_weight.addmm_(gradient[rows].t(), values)
        return None, of_weight, gradient.sum(0)


def _pieces(stored: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield which rows, and these rows as float32; the tensor is used again for the next ones."""
    size = max(1, _PIECE_BYTES // (_FLOAT_BYTES * stored.shape[1]))
    space = torch.empty(min(size, len(stored)), stored.shape[1])
    for first in range(0, len(stored), size):
        rows = slice(first, first + size)
        part = stored[rows]
        yield rows, space[: len(part)].copy_(part)
