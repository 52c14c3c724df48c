"""Numba kernels of the selective scan, forwards and backwards.

A task is one block of channels of one sequence, in all directions; tasks share nothing that they write. Within it the
time runs in chunks: the forward kernel keeps the state before each chunk alone, and the backward kernel computes the
states of one chunk at a time again, so that nothing of size (L, E, S) is ever stored. The innermost loops run over the
channels of the block, which LLVM turns into vector instructions.
"""

from __future__ import annotations

import numpy as np

from diffvqa.stages._scan.rows import CHUNK, BoolArray, FloatArray, any_valid, copy_in, copy_out, fill, gather, scatter
from diffvqa.stages._scan.vector_math import LN_2, LOG2_E, compiled, exp2, sigmoid, softplus

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_NO_STEP = np.float32(-1e4)  # its softplus is 0, or as good as


@compiled
def _add_direct(D: FloatArray, u: FloatArray, y: FloatArray) -> None:
    for k in range(u.shape[0]):
        for j in range(u.shape[1]):
            y[k, j] += D[j] * u[k, j]


@compiled
def _load_rates(A: FloatArray, start: int, rates: FloatArray) -> None:
    """Set rates (S, width) to A (E, S) from channel ``start`` on, for powers of two."""
    part = A[start : start + rates.shape[1]]
    for s in range(rates.shape[0]):
        for j in range(rates.shape[1]):
            rates[s, j] = part[j, s] * LOG2_E


@compiled
def _discretise(
    steps: int, step_bias: FloatArray, u: FloatArray, raw: FloatArray, delta: FloatArray, drive: FloatArray
) -> None:
    """Add the bias to ``raw``, set delta = softplus(raw) and drive = delta u; all (steps, width)."""
    for k in range(steps):
        for j in range(delta.shape[1]):
            biased = raw[k, j] + step_bias[j]
            raw[k, j] = biased
            size = softplus(biased)
            delta[k, j] = size
            drive[k, j] = size * u[k, j]


@compiled
def _recur(
    begin: int,
    end: int,
    against: bool,
    valid: BoolArray,
    rates: FloatArray,
    B: FloatArray,
    C: FloatArray,
    delta: FloatArray,
    drive: FloatArray,
    h: FloatArray,
    y: FloatArray,
) -> None:
    """Take the state h (S, width) through a chunk and add what is read of it to y (steps, width)."""
    for i in range(begin, end):
        t = B.shape[0] - 1 - i if against else i
        k = i - begin
        if not valid[t]:
            continue
        for s in range(h.shape[0]):
            b = B[t, s]
            c = C[t, s]
            for j in range(h.shape[1]):
                after = exp2(delta[k, j] * rates[s, j]) * h[s, j] + drive[k, j] * b
                y[k, j] += after * c
                h[s, j] = after


@compiled
def _gate(gate: FloatArray, y: FloatArray, start: int, valid: BoolArray, row: FloatArray, out: FloatArray) -> None:
    """Set out = y silu(gate) where ``valid``, from channel ``start`` on; all (L, E), ``row`` is scratch."""
    for t in range(len(valid)):
        if valid[t]:
            gather(gate, start, t, t + 1, False, valid, _ZERO, row)
            ungated = y[t, start : start + row.shape[1]]
            gated = out[t, start : start + row.shape[1]]
            for j in range(row.shape[1]):
                gated[j] = ungated[j] * row[0, j] * sigmoid(row[0, j])


@compiled
def scan_forward(
    first: int,
    last: int,
    block: int,
    u: FloatArray,
    step: FloatArray,
    A: FloatArray,
    B: FloatArray,
    C: FloatArray,
    D: FloatArray,
    gate: FloatArray,
    step_bias: FloatArray,
    valid: BoolArray,
    reverse: BoolArray,
    kept: FloatArray,
    y: FloatArray,
    out: FloatArray,
) -> None:
    """Run the tasks ``first`` to ``last`` (excluded).

    Args:
        first: Number of the first task: sequence * blocks + block of channels.
        last: Number after the last task.
        block: Channels in a block.
        u: (G, N, L, E) the input of each direction.
        step: (G, N, L, E) the step sizes before bias and softplus.
        A: (G, E, S) negative.
        B: (G, N, L, S).
        C: (G, N, L, S).
        D: (G, E).
        gate: (N, L, E).
        step_bias: (G, E).
        valid: (N, L) False for padding.
        reverse: (G,) True for a direction that runs against time.
        kept: (G, N, chunks, S, E) receives the state before each chunk, or (G, N, 0, S, E) to keep none.
        y: (N, L, E) zeros, receives the sum over the directions.
        out: (N, L, E) zeros, receives y silu(gate).
    """
    directions, length, channels = u.shape[0], u.shape[2], u.shape[3]
    states = A.shape[2]
    keep = kept.shape[2] > 0
    blocks = (channels + block - 1) // block
    for task in range(first, last):
        n = task // blocks
        start = (task % blocks) * block
        stop = min(start + block, channels)
        width = stop - start
        rates = np.empty((states, width), np.float32)
        h = np.empty((states, width), np.float32)
        inputs = np.empty((CHUNK, width), np.float32)
        raw = np.empty((CHUNK, width), np.float32)
        delta = np.empty((CHUNK, width), np.float32)
        drive = np.empty((CHUNK, width), np.float32)
        read = np.empty((CHUNK, width), np.float32)
        for g in range(directions):
            _load_rates(A[g], start, rates)
            fill(h, _ZERO)
            for begin in range(0, length, CHUNK):
                end = min(begin + CHUNK, length)
                if not any_valid(valid[n], begin, end, reverse[g]):
                    continue
                if keep:
                    copy_out(h, kept[g, n, begin // CHUNK], start)
                gather(u[g, n], start, begin, end, reverse[g], valid[n], _ZERO, inputs)
                gather(step[g, n], start, begin, end, reverse[g], valid[n], _NO_STEP, raw)
                _discretise(end - begin, step_bias[g, start:stop], inputs, raw, delta, drive)
                fill(read, _ZERO)
                _recur(begin, end, reverse[g], valid[n], rates, B[g, n], C[g, n], delta, drive, h, read)
                _add_direct(D[g, start:stop], inputs, read)
                scatter(read, begin, end, reverse[g], valid[n], True, y[n], start)
        _gate(gate[n], y[n], start, valid[n], read, out[n])


@compiled
def _gate_backward(
    grad_out: FloatArray,
    gate: FloatArray,
    y: FloatArray,
    start: int,
    valid: BoolArray,
    row: FloatArray,
    grad_gate: FloatArray,
    grad_y: FloatArray,
) -> None:
    """Set grad_gate (L, E) from channel ``start`` on, and grad_y (L, width), where ``valid``; ``row`` is scratch."""
    for t in range(len(valid)):
        if valid[t]:
            stop = start + row.shape[1]
            gather(gate, start, t, t + 1, False, valid, _ZERO, row)
            grad, ungated, to_gate = grad_out[t, start:stop], y[t, start:stop], grad_gate[t, start:stop]
            for j in range(row.shape[1]):
                z = row[0, j]
                share = sigmoid(z)
                grad_y[t, j] = grad[j] * z * share
                to_gate[j] = grad[j] * ungated[j] * share * (_ONE + z * (_ONE - share))


@compiled
def _states_of_chunk(
    begin: int,
    end: int,
    against: bool,
    valid: BoolArray,
    rates: FloatArray,
    B: FloatArray,
    delta: FloatArray,
    drive: FloatArray,
    decays: FloatArray,
    h: FloatArray,
) -> None:
    """From h[0] set h[k + 1] and decays[k] for each step k of a chunk; both (…, S, width)."""
    for i in range(begin, end):
        t = B.shape[0] - 1 - i if against else i
        k = i - begin
        for s in range(rates.shape[0]):
            b = B[t, s] if valid[t] else _ZERO
            for j in range(rates.shape[1]):
                decay = exp2(delta[k, j] * rates[s, j])
                decays[k, s, j] = decay
                h[k + 1, s, j] = decay * h[k, s, j] + drive[k, j] * b


@compiled
def _recur_backward(
    begin: int,
    end: int,
    against: bool,
    valid: BoolArray,
    B: FloatArray,
    C: FloatArray,
    rates: FloatArray,
    delta: FloatArray,
    drive: FloatArray,
    decays: FloatArray,
    h: FloatArray,
    grad_y: FloatArray,
    grad_h: FloatArray,
    grad_rates: FloatArray,
    grad_B: FloatArray,
    grad_C: FloatArray,
    through_B: FloatArray,
    through_A: FloatArray,
) -> None:
    """Take grad_h (S, width) back through a chunk; through_B and through_A receive both parts of delta's gradient."""
    for i in range(end - 1, begin - 1, -1):
        t = len(valid) - 1 - i if against else i
        k = i - begin
        if not valid[t]:
            continue
        for s in range(rates.shape[0]):
            b = B[t, s]
            c = C[t, s]
            sum_B = _ZERO
            sum_C = _ZERO
            for j in range(rates.shape[1]):
                grad = grad_h[s, j] + grad_y[t, j] * c
                sum_C += grad_y[t, j] * h[k + 1, s, j]
                sum_B += grad * drive[k, j]
                before = grad * decays[k, s, j]
                decayed = before * h[k, s, j]
                through_B[k, j] += grad * b
                through_A[k, j] += decayed * rates[s, j]
                grad_rates[s, j] += decayed * delta[k, j]
                grad_h[s, j] = before
            grad_B[t, s] = sum_B
            grad_C[t, s] = sum_C


@compiled
def _inputs_backward(
    begin: int,
    end: int,
    against: bool,
    u: FloatArray,
    raw: FloatArray,
    delta: FloatArray,
    D: FloatArray,
    grad_y: FloatArray,
    grad_bias: FloatArray,
    grad_D: FloatArray,
    through_B: FloatArray,
    through_A: FloatArray,
) -> None:
    """Turn through_B into the gradient of u and through_A into that of the raw step; all (steps, width)."""
    for i in range(begin, end):
        t = grad_y.shape[0] - 1 - i if against else i
        k = i - begin
        for j in range(u.shape[1]):
            grad_raw = (u[k, j] * through_B[k, j] + LN_2 * through_A[k, j]) * sigmoid(raw[k, j])
            through_A[k, j] = grad_raw
            grad_bias[j] += grad_raw
            through_B[k, j] = delta[k, j] * through_B[k, j] + D[j] * grad_y[t, j]
            grad_D[j] += u[k, j] * grad_y[t, j]


@compiled
def scan_backward(
    first: int,
    last: int,
    block: int,
    u: FloatArray,
    step: FloatArray,
    A: FloatArray,
    B: FloatArray,
    C: FloatArray,
    D: FloatArray,
    gate: FloatArray,
    step_bias: FloatArray,
    valid: BoolArray,
    reverse: BoolArray,
    kept: FloatArray,
    y: FloatArray,
    grad_out: FloatArray,
    grad_u: FloatArray,
    grad_step: FloatArray,
    grad_A: FloatArray,
    grad_B: FloatArray,
    grad_C: FloatArray,
    grad_D: FloatArray,
    grad_gate: FloatArray,
    grad_step_bias: FloatArray,
) -> None:
    """Run the tasks ``first`` to ``last`` (excluded) of the gradient; see :func:`scan_forward`.

    Args:
        first: Number of the first task.
        last: Number after the last task.
        block: Channels in a block.
        u: As there, and so on up to ``y``.
        step: As there.
        A: As there.
        B: As there.
        C: As there.
        D: As there.
        gate: As there.
        step_bias: As there.
        valid: As there.
        reverse: As there.
        kept: As that kernel left it.
        y: As that kernel left it.
        grad_out: (N, L, E) the gradient of ``out``.
        grad_u: (G, N, L, E) zeros, receives a gradient, as all that follow.
        grad_step: (G, N, L, E) zeros.
        grad_A: (N, G, E, S) zeros, each sequence's share.
        grad_B: (blocks, G, N, L, S) zeros, each block's share.
        grad_C: (blocks, G, N, L, S) zeros, each block's share.
        grad_D: (N, G, E) zeros, each sequence's share.
        grad_gate: (N, L, E) zeros.
        grad_step_bias: (N, G, E) zeros, each sequence's share.
    """
    directions, length, channels = u.shape[0], u.shape[2], u.shape[3]
    states = A.shape[2]
    chunks = (length + CHUNK - 1) // CHUNK
    blocks = (channels + block - 1) // block
    for task in range(first, last):
        n = task // blocks
        part = task % blocks
        start = part * block
        stop = min(start + block, channels)
        width = stop - start
        rates = np.empty((states, width), np.float32)
        grad_rates = np.empty((states, width), np.float32)
        grad_h = np.empty((states, width), np.float32)
        h = np.empty((CHUNK + 1, states, width), np.float32)
        decays = np.empty((CHUNK, states, width), np.float32)
        inputs = np.empty((CHUNK, width), np.float32)
        raw = np.empty((CHUNK, width), np.float32)
        delta = np.empty((CHUNK, width), np.float32)
        drive = np.empty((CHUNK, width), np.float32)
        through_B = np.empty((CHUNK, width), np.float32)
        through_A = np.empty((CHUNK, width), np.float32)
        grad_y = np.zeros((length, width), np.float32)
        _gate_backward(grad_out[n], gate[n], y[n], start, valid[n], inputs, grad_gate[n], grad_y)
        for g in range(directions):
            _load_rates(A[g], start, rates)
            fill(grad_rates, _ZERO)
            fill(grad_h, _ZERO)
            for chunk in range(chunks - 1, -1, -1):
                begin = chunk * CHUNK
                end = min(begin + CHUNK, length)
                if not any_valid(valid[n], begin, end, reverse[g]):
                    continue
                copy_in(kept[g, n, chunk], start, h[0])
                gather(u[g, n], start, begin, end, reverse[g], valid[n], _ZERO, inputs)
                gather(step[g, n], start, begin, end, reverse[g], valid[n], _NO_STEP, raw)
                _discretise(end - begin, step_bias[g, start:stop], inputs, raw, delta, drive)
                _states_of_chunk(begin, end, reverse[g], valid[n], rates, B[g, n], delta, drive, decays, h)
                fill(through_B, _ZERO)
                fill(through_A, _ZERO)
                _recur_backward(
                    begin,
                    end,
                    reverse[g],
                    valid[n],
                    B[g, n],
                    C[g, n],
                    rates,
                    delta,
                    drive,
                    decays,
                    h,
                    grad_y,
                    grad_h,
                    grad_rates,
                    grad_B[part, g, n],
                    grad_C[part, g, n],
                    through_B,
                    through_A,
                )
                _inputs_backward(
                    begin,
                    end,
                    reverse[g],
                    inputs,
                    raw,
                    delta,
                    D[g, start:stop],
                    grad_y,
                    grad_step_bias[n, g, start:stop],
                    grad_D[n, g, start:stop],
                    through_B,
                    through_A,
                )
                scatter(through_B, begin, end, reverse[g], valid[n], False, grad_u[g, n], start)
                scatter(through_A, begin, end, reverse[g], valid[n], False, grad_step[g, n], start)
            to_A = grad_A[n, g, start:stop]
            for s in range(states):
                for j in range(width):
                    to_A[j, s] = grad_rates[s, j]
