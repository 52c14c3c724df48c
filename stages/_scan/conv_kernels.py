"""Numba kernels of the short convolution over time, with its SiLU, forwards and backwards."""

from __future__ import annotations

import numpy as np

from diffvqa.stages._scan.rows import CHUNK, BoolArray, FloatArray, any_valid, copy_in, copy_out, fill, gather, scatter
from diffvqa.stages._scan.vector_math import compiled, sigmoid

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def _convolve_rows(steps: int, inputs: FloatArray, weight: FloatArray, bias: FloatArray, out: FloatArray) -> None:
    """Set out (steps, width) to the convolution of inputs (K - 1 + steps, width), before its activation."""
    for k in range(steps):
        for j in range(out.shape[1]):
            out[k, j] = bias[j]
        for tap in range(weight.shape[0]):
            for j in range(out.shape[1]):
                out[k, j] += weight[tap, j] * inputs[k + tap, j]


@compiled
def _activate(rows: FloatArray) -> None:
    """Apply SiLU."""
    for k in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[k, j] *= sigmoid(rows[k, j])


@compiled
def _activate_backward(before: FloatArray, grad: FloatArray) -> None:
    """Turn the gradient after the SiLU into that before it."""
    for k in range(before.shape[0]):
        for j in range(before.shape[1]):
            share = sigmoid(before[k, j])
            grad[k, j] *= share * (_ONE + before[k, j] * (_ONE - share))


@compiled
def _convolve_rows_backward(
    steps: int,
    inputs: FloatArray,
    weight: FloatArray,
    grad: FloatArray,
    grad_inputs: FloatArray,
    grad_weight: FloatArray,
    grad_bias: FloatArray,
) -> None:
    """Add what the gradient of :func:`_convolve_rows` gives to those of its inputs."""
    for k in range(steps):
        for j in range(grad.shape[1]):
            grad_bias[j] += grad[k, j]
        for tap in range(weight.shape[0]):
            for j in range(grad.shape[1]):
                grad_weight[tap, j] += grad[k, j] * inputs[k + tap, j]
                grad_inputs[k + tap, j] += grad[k, j] * weight[tap, j]


@compiled
def convolve_forward(
    first: int,
    last: int,
    block: int,
    x: FloatArray,
    valid: BoolArray,
    weight: FloatArray,
    bias: FloatArray,
    reverse: BoolArray,
    out: FloatArray,
) -> None:
    """Run the tasks ``first`` to ``last`` (excluded); a task is one block of channels of one sequence.

    Args:
        first: Number of the first task: sequence * blocks + block of channels.
        last: Number after the last task.
        block: Channels in a block.
        x: (N, L, E) the input.
        valid: (N, L) False for padding.
        weight: (G, K, E) one filter of K taps per channel and direction, the newest input last.
        bias: (G, E).
        reverse: (G,) True for a direction that runs against time.
        out: (G, N, L, E) receives silu(convolution); stays as it is at padding.
    """
    length, channels = x.shape[1], x.shape[2]
    past = weight.shape[1] - 1
    blocks = (channels + block - 1) // block
    for task in range(first, last):
        n = task // blocks
        start = (task % blocks) * block
        stop = min(start + block, channels)
        filters = np.empty((past + 1, stop - start), np.float32)
        inputs = np.empty((past + CHUNK, stop - start), np.float32)
        rows = np.empty((CHUNK, stop - start), np.float32)
        fill(rows, _ZERO)
        for g in range(weight.shape[0]):
            copy_in(weight[g], start, filters)
            for begin in range(0, length, CHUNK):
                end = min(begin + CHUNK, length)
                if any_valid(valid[n], begin, end, reverse[g]):
                    gather(x[n], start, begin - past, end, reverse[g], valid[n], _ZERO, inputs)
                    _convolve_rows(end - begin, inputs, filters, bias[g, start:stop], rows)
                    _activate(rows)
                    scatter(rows, begin, end, reverse[g], valid[n], False, out[g, n], start)


@compiled
def convolve_backward(
    first: int,
    last: int,
    block: int,
    x: FloatArray,
    valid: BoolArray,
    weight: FloatArray,
    bias: FloatArray,
    reverse: BoolArray,
    grad_out: FloatArray,
    grad_x: FloatArray,
    grad_weight: FloatArray,
    grad_bias: FloatArray,
) -> None:
    """Run the tasks ``first`` to ``last`` (excluded) of the gradient; see :func:`convolve_forward`.

    Args:
        first: Number of the first task.
        last: Number after the last task.
        block: Channels in a block.
        x: (N, L, E).
        valid: (N, L).
        weight: (G, K, E).
        bias: (G, E).
        reverse: (G,).
        grad_out: (G, N, L, E) the gradient of the output.
        grad_x: (N, L, E) zeros, receives the gradient of x.
        grad_weight: (N, G, K, E) zeros, receives each sequence's share of the gradient.
        grad_bias: (N, G, E) zeros, the same.
    """
    length, channels = x.shape[1], x.shape[2]
    past = weight.shape[1] - 1
    blocks = (channels + block - 1) // block
    for task in range(first, last):
        n = task // blocks
        start = (task % blocks) * block
        stop = min(start + block, channels)
        filters = np.empty((past + 1, stop - start), np.float32)
        grad_filters = np.empty((past + 1, stop - start), np.float32)
        inputs = np.empty((past + CHUNK, stop - start), np.float32)
        grad_inputs = np.empty((past + CHUNK, stop - start), np.float32)
        before = np.empty((CHUNK, stop - start), np.float32)
        grad = np.empty((CHUNK, stop - start), np.float32)
        fill(before, _ZERO)
        fill(grad, _ZERO)
        for g in range(weight.shape[0]):
            copy_in(weight[g], start, filters)
            fill(grad_filters, _ZERO)
            for begin in range(0, length, CHUNK):
                end = min(begin + CHUNK, length)
                if not any_valid(valid[n], begin, end, reverse[g]):
                    continue
                gather(x[n], start, begin - past, end, reverse[g], valid[n], _ZERO, inputs)
                _convolve_rows(end - begin, inputs, filters, bias[g, start:stop], before)
                gather(grad_out[g, n], start, begin, end, reverse[g], valid[n], _ZERO, grad)
                _activate_backward(before, grad)
                fill(grad_inputs, _ZERO)
                _convolve_rows_backward(
                    end - begin, inputs, filters, grad, grad_inputs, grad_filters, grad_bias[n, g, start:stop]
                )
                scatter(grad_inputs, begin - past, end, reverse[g], valid[n], True, grad_x[n], start)
            copy_out(grad_filters, grad_weight[n, g], start)
