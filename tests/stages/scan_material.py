"""Random inputs for scans, and their outputs and gradients side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from diffvqa.stages._scan.inputs import ConvInputs, ScanInputs

Scan = Callable[[ScanInputs], Tensor]
Convolution = Callable[[ConvInputs], Tensor]

GRADIENT_NAMES = tuple(field.name for field in fields(ScanInputs))[:8]

# (directions, sequences, length, channels, states): below and beyond a chunk of 16 steps, a block of 64 channels.
shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.sampled_from([1, 3, 8, 63, 64, 70]), st.integers(1, 6)
)
seeds = st.integers(0, 10_000)


def random_mask(sequences: int, length: int, generator: torch.Generator) -> Tensor:
    """Padding at the end of some, in the middle of others; always a token somewhere."""
    lengths = torch.randint(1, length + 1, (sequences, 1), generator=generator)
    mask = torch.arange(length) < lengths
    holes = torch.rand(sequences, length, generator=generator) < 0.2
    holes[:, 0] = False
    return mask & ~(holes & (torch.rand(sequences, 1, generator=generator) < 0.5))


def scan_inputs(shape: tuple[int, int, int, int, int], seed: int, dtype: torch.dtype = torch.float32) -> ScanInputs:
    """Steps from tiny to large, decay rates as Mamba starts with and stronger, any mask, both directions."""
    directions, sequences, length, channels, states = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    wide = (directions, sequences, length)
    inputs = ScanInputs(
        u=normal(*wide, channels).to(dtype),
        step=(2 * normal(*wide, channels) - 2).to(dtype),
        A=-states * torch.rand(directions, channels, states, generator=generator) - 0.1,
        B=normal(*wide, states).to(dtype),
        C=normal(*wide, states).to(dtype),
        D=normal(directions, channels).float(),
        gate=normal(sequences, length, channels).to(dtype),
        step_bias=normal(directions, channels).float(),
        mask=random_mask(sequences, length, generator),
        reverse=(False, True)[:directions],
    )
    return inputs if dtype != torch.float64 else with_type(inputs, torch.float64)


def with_type(inputs: ScanInputs, dtype: torch.dtype) -> ScanInputs:
    changed: dict[str, Any] = {name: getattr(inputs, name).to(dtype) for name in GRADIENT_NAMES}
    return replace(inputs, **changed)


def outputs_and_gradients(scan: Scan, inputs: ScanInputs, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield ("out", …) and the gradient of each input, all at the tokens that are no padding."""
    leaves = {name: getattr(inputs, name).detach().clone().requires_grad_() for name in GRADIENT_NAMES}
    out = scan(replace(inputs, **leaves))
    # Numbers that every type holds exactly, so that all are asked for the same gradient.
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).bfloat16()
    gradients = torch.autograd.grad(out, list(leaves.values()), weights.to(out.dtype) * inputs.mask.unsqueeze(-1))
    yield "out", out.detach()
    yield from zip(leaves, gradients, strict=True)


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest value expected."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-3))
