"""The selective scan and its convolution on a CPU, by the numba kernels, with their own gradients.

The kernels release the interpreter lock; threads that live for one call share the tasks out among themselves. Nothing
stays behind between calls that a fork, a spawn or a second calling thread could trip over, which cannot be said of
numba's own thread pools. The results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffvqa.stages._scan.inputs import ConvInputs, ScanInputs, records_gradients, refuse_second_derivative

if TYPE_CHECKING:
    from diffvqa.stages._scan.compilation import Kernels

_BLOCK = 64  # channels: eight vectors of AVX2, and the states of a chunk still fit the second-level cache

# Elements (times states) that one more thread is worth, about a millisecond of work.
_WORK_PER_THREAD = 2_000_000

_Kernel = Callable[..., None]


class KernelsUnavailableError(Exception):
    """The kernels cannot be compiled here; the message says why."""


@functools.cache
def load_kernels() -> Kernels:
    """Compile the kernels, or load them from numba's cache of an earlier process.

    Raises:
        KernelsUnavailableError: numba is missing, broken, switched off, or cannot compile for this machine.
    """
    try:
        import numba  # noqa: F401  # the package itself, whatever of it is loaded already
        from numba.core.errors import NumbaError
    except ImportError as error:
        raise KernelsUnavailableError(f"numba cannot be imported ({error})") from error
    from diffvqa.stages._scan import compilation

    try:
        return compilation.compiled_kernels()
    except (NumbaError, RuntimeError, OSError) as error:
        raise KernelsUnavailableError(f"numba cannot compile the kernels ({error})") from error


def convolve(inputs: ConvInputs) -> Tensor:
    """Run each direction's causal depthwise convolution and its SiLU; (G, N, L, E), 0 at padding, of x's type."""
    out: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]  # torch's own signature
        inputs.x.float(), inputs.weight.float(), inputs.bias.float(), inputs.mask, inputs.reverse
    )
    return out.to(inputs.x.dtype)


def selective_scan(inputs: ScanInputs) -> Tensor:
    """Return what :func:`diffvqa.stages._scan.reference.selective_scan` does, computed in float32."""
    tensors = tuple(tensor.float() for tensor in inputs.differentiable())
    keep = records_gradients(tensors)
    out: Tensor = _Scan.apply(*tensors, inputs.mask, inputs.reverse, keep)  # type: ignore[no-untyped-call]  # as above
    return out.to(inputs.u.dtype)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, reverse: tuple[bool, ...]) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mask)
        ctx.reverse = reverse
        out: Tensor = torch.zeros(len(reverse), *x.shape)
        arguments = (*_conv_arguments(x, weight, bias, mask, reverse), _array(out))
        _share_out(load_kernels().convolve_forward, x.shape, weight.shape[2] * len(reverse), arguments)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, weight, bias, mask = ctx.saved_tensors
        directions, channels, taps = weight.shape
        grad_x = torch.zeros(x.shape)
        grad_weight = torch.zeros(x.shape[0], directions, taps, channels)
        grad_bias = torch.zeros(x.shape[0], directions, channels)
        arguments = (
            *_conv_arguments(x, weight, bias, mask, ctx.reverse),
            *(_array(part) for part in (grad_out.contiguous(), grad_x, grad_weight, grad_bias)),
        )
        _share_out(load_kernels().convolve_backward, x.shape, 3 * taps * directions, arguments)
        return grad_x, grad_weight.sum(0).transpose(1, 2), grad_bias.sum(0), None, None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, mask, reverse, keep = arguments
        u, A = tensors[0], tensors[2]
        directions, sequences, length, channels = u.shape
        kernels = load_kernels()
        chunks = -(-length // kernels.chunk) if keep else 0
        kept = torch.empty(directions, sequences, chunks, A.shape[2], channels)
        y, out = (torch.zeros(sequences, length, channels) for _ in range(2))
        inputs = _scan_arguments(tensors, mask, reverse)
        _share_out(
            kernels.scan_forward,
            y.shape,
            A.shape[2] * directions,
            (*inputs, *(_array(part) for part in (kept, y, out))),
        )
        ctx.save_for_backward(*tensors, mask, kept, y)
        ctx.reverse = reverse
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        *tensors, mask, kept, y = ctx.saved_tensors
        u, A = tensors[0], tensors[2]
        directions, sequences, length, channels = u.shape
        states, blocks = A.shape[2], -(-channels // _BLOCK)
        grads = {
            "u": torch.zeros(u.shape),
            "step": torch.zeros(u.shape),
            "A": torch.zeros(sequences, directions, channels, states),
            "B": torch.zeros(blocks, directions, sequences, length, states),
            "C": torch.zeros(blocks, directions, sequences, length, states),
            "D": torch.zeros(sequences, directions, channels),
            "gate": torch.zeros(y.shape),
            "step_bias": torch.zeros(sequences, directions, channels),
        }
        inputs = _scan_arguments(tensors, mask, ctx.reverse)
        outputs = [_array(part) for part in (kept, y, grad_out.contiguous(), *grads.values())]
        _share_out(load_kernels().scan_backward, y.shape, 4 * states * directions, (*inputs, *outputs))
        summed = {name: grads[name].sum(0) for name in ("A", "B", "C", "D", "step_bias")}
        return (*(grads | summed).values(), None, None, None)


def _conv_arguments(
    x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, reverse: tuple[bool, ...]
) -> tuple[np.ndarray, ...]:
    return (
        _array(x),
        _array(mask.contiguous()),
        _array(weight.transpose(1, 2).contiguous()),
        _array(bias.contiguous()),
        np.array(reverse),
    )


def _scan_arguments(tensors: list[Tensor], mask: Tensor, reverse: tuple[bool, ...]) -> tuple[np.ndarray, ...]:
    u, step, A, B, C, D, gate, step_bias = tensors
    return (
        _array(u.contiguous()),
        _array(step.contiguous()),
        _array(A.contiguous()),
        _array(B),
        _array(C),
        _array(D.contiguous()),
        _array(gate),
        _array(step_bias.contiguous()),
        _array(mask.contiguous()),
        np.array(reverse),
    )


def _array(tensor: Tensor) -> np.ndarray:
    """Return a view of the same memory."""
    array: np.ndarray = tensor.detach().numpy()
    return array


def _share_out(kernel: _Kernel, shape: torch.Size, work_per_element: int, arguments: tuple[np.ndarray, ...]) -> None:
    """Run a kernel on all blocks of channels of all sequences, on as many of torch's threads as the work is worth."""
    tasks = shape[0] * -(-shape[2] // _BLOCK)
    worth = shape.numel() * work_per_element // _WORK_PER_THREAD
    threads = min(torch.get_num_threads(), tasks, worth)
    if threads <= 1:
        kernel(0, tasks, _BLOCK, *arguments)
        return
    numbers = iter(range(tasks))  # each thread takes the next number; the interpreter lock makes that safe

    def take_tasks() -> None:
        for task in numbers:
            kernel(task, task + 1, _BLOCK, *arguments)

    with ThreadPoolExecutor(threads - 1) as helpers:
        running = [helpers.submit(take_tasks) for _ in range(threads - 1)]
        take_tasks()
        for future in running:
            future.result()
