"""What goes into a selective scan and into the convolution before it, the same for every way to run them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScanInputs:
    """Inputs of a selective scan over N sequences of L tokens with E channels and S states, in G directions.

    Everything stands in the order of time, also for a direction that runs against it.

    Attributes:
        u: (G, N, L, E) float, the input.
        step: (G, N, L, E) float, the step sizes before bias and softplus.
        A: (G, E, S) float32, negative, the decay rates.
        B: (G, N, L, S) float, how the input enters the states.
        C: (G, N, L, S) float, how the states are read.
        D: (G, E) float32, the direct path.
        gate: (N, L, E) float, before its SiLU, the same for all directions.
        step_bias: (G, E) float32.
        mask: (N, L) bool, False for padding, wherever it stands.
        reverse: Of length G, True for a direction that runs against time.
    """

    u: Tensor
    step: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    gate: Tensor
    step_bias: Tensor
    mask: Tensor
    reverse: tuple[bool, ...]

    def differentiable(self) -> tuple[Tensor, ...]:
        """Return the tensors that gradients flow to, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self)[:8])


@dataclass(frozen=True)
class ConvInputs:
    """Inputs of the causal depthwise convolution, in G directions.

    Attributes:
        x: (N, L, E) float, in the order of time.
        weight: (G, E, K) float, filters of K taps, the newest input last.
        bias: (G, E) float.
        mask: (N, L) bool, False for padding, which counts as zeros.
        reverse: Of length G, True for a direction that runs against time.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    mask: Tensor
    reverse: tuple[bool, ...]


def refuse_second_derivative() -> None:
    """Raise where a backward pass is itself recorded: what it computes here, autograd could not follow.

    Raises:
        RuntimeError: ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("The selective scan has no second derivative: do not ask for one with create_graph=True.")


def records_gradients(tensors: tuple[Tensor, ...]) -> bool:
    """Tell whether an operation on these tensors has to keep what its backward pass needs."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
