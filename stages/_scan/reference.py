"""The selective scan in plain PyTorch, by its definition: for any device and float type, and for the others' tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffvqa.stages._scan.inputs import ConvInputs, ScanInputs, refuse_second_derivative


def convolve(inputs: ConvInputs) -> Tensor:
    """Run each direction's causal depthwise convolution and its SiLU; (G, N, L, E), any value at padding."""
    x = inputs.x.masked_fill(~inputs.mask.unsqueeze(-1), 0.0).transpose(1, 2)
    past = inputs.weight.shape[-1] - 1
    convolved = [
        F.conv1d(
            F.pad(x, (0, past) if reverse else (past, 0)),
            (weight.flip(-1) if reverse else weight).unsqueeze(1),
            bias,
            groups=x.shape[1],
        )
        for weight, bias, reverse in zip(inputs.weight, inputs.bias, inputs.reverse, strict=True)
    ]
    return F.silu(torch.stack(convolved).transpose(2, 3))


def selective_scan(inputs: ScanInputs) -> Tensor:
    """Run the discretised selective state space over time, one time step after another.

    delta_t = softplus(step_t + step_bias), h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t with h_{-1} = 0, and
    y_t = C_t h_t + D u_t. A step at padding leaves the state as it was.

    Returns:
        (N, L, E), the sum of y over the directions times silu(gate), 0 at padding; of the type of ``u``.
    """
    valid = inputs.mask.unsqueeze(-1)
    u = inputs.u.masked_fill(~valid, 0.0).to(inputs.A.dtype)
    step = inputs.step.masked_fill(~valid, 0.0).to(inputs.A.dtype)
    delta = F.softplus(step + inputs.step_bias[:, None, None]).masked_fill(~valid, 0.0)
    u_by_time, delta_by_time, B, C = (
        _time_first(part, inputs.reverse)
        for part in (u, delta, inputs.B.masked_fill(~valid, 0.0), inputs.C.masked_fill(~valid, 0.0))
    )
    decay = torch.exp(delta_by_time.unsqueeze(-1) * inputs.A.unsqueeze(1))
    drive = (delta_by_time * u_by_time).unsqueeze(-1) * B.unsqueeze(-2).to(u.dtype)
    states: Tensor = _LinearRecurrence.apply(decay, drive)  # type: ignore[no-untyped-call]  # torch's own signature
    read = torch.matmul(states, C.unsqueeze(-1).to(u.dtype)).squeeze(-1)
    y = (_in_order(read, inputs.reverse) + inputs.D[:, None, None] * u).sum(0)
    # The silu of 0 is 0: that is the output at padding.
    return (y * F.silu(inputs.gate.masked_fill(~valid, 0.0).to(u.dtype))).to(inputs.u.dtype)


class _LinearRecurrence(torch.autograd.Function):
    """h_t = decay_t h_{t-1} + drive_t along the first axis, h_{-1} = 0; one fused operation per step, both ways."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        states = torch.empty_like(drive)
        states[0] = drive[0]
        steps = zip(decay.unbind()[1:], drive.unbind()[1:], states.unbind()[:-1], states.unbind()[1:], strict=True)
        for decay_t, drive_t, before, after in steps:
            torch.addcmul(drive_t, decay_t, before, out=after)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor]:
        refuse_second_derivative()
        decay, states = ctx.saved_tensors
        grad_drive = grad_states.clone(memory_format=torch.contiguous_format)
        steps = zip(decay.unbind()[:0:-1], grad_drive.unbind()[:0:-1], grad_drive.unbind()[-2::-1], strict=True)
        for decay_after, grad_after, grad_before in steps:
            grad_before.addcmul_(decay_after, grad_after)
        grad_decay = torch.zeros_like(decay)
        torch.mul(grad_drive[1:], states[:-1], out=grad_decay[1:])
        return grad_decay, grad_drive


def _time_first(sequences: Tensor, reverse: tuple[bool, ...]) -> Tensor:
    """(G, N, L, X) to (L, G, N, X) in the order in which each direction reads; a time step is one piece of memory."""
    return (
        torch.stack([part.flip(1) if back else part for part, back in zip(sequences, reverse, strict=True)])
        .permute(2, 0, 1, 3)
        .contiguous()
    )


def _in_order(by_time: Tensor, reverse: tuple[bool, ...]) -> Tensor:
    """(L, G, N, ...) as the directions read to (G, N, L, ...) in the order of time."""
    parts = by_time.permute(1, 2, 0, 3)
    return torch.stack([part.flip(1) if back else part for part, back in zip(parts, reverse, strict=True)])
