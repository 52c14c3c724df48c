"""Selective state spaces (Mamba) in plain PyTorch, in one direction and in both.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023); for the two directions Zhu et
al., "Vision Mamba" (2024) and Li et al., "VideoMamba" (2024). Parameters are named as in ``mamba-ssm`` and, for the
backward direction, as in VideoMamba.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEP_RANGE = (1e-3, 1e-1)


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Run the discretised selective state space over time, one time step after another.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t and y_t = C_t h_t + D u_t, with h_{-1} = 0. G directions, each with
    its own A and D, share one loop. A step with delta 0 leaves the state as it was.

    Args:
        u: (L, G, N, E) float, the input at L times, of N sequences with E channels.
        delta: (L, G, N, E) float, at least 0, the step sizes.
        A: (G, E, S) float, negative, the decay rates of S states per channel.
        B: (L, G, N, S) float, how the input enters the states.
        C: (L, G, N, S) float, how the states are read.
        D: (G, E) float, the direct path.

    Returns:
        (L, G, N, E) float, the output y.
    """
    decay = torch.exp(delta.unsqueeze(-1) * A.unsqueeze(1))
    drive = (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
    states: Tensor = _LinearRecurrence.apply(decay, drive)  # type: ignore[no-untyped-call]  # torch's own signature
    return torch.matmul(states, C.unsqueeze(-1)).squeeze(-1) + D.unsqueeze(1) * u


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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        grad_drive = grad_states.clone(memory_format=torch.contiguous_format)
        steps = zip(decay.unbind()[:0:-1], grad_drive.unbind()[:0:-1], grad_drive.unbind()[-2::-1], strict=True)
        for decay_after, grad_after, grad_before in steps:
            grad_before.addcmul_(decay_after, grad_after)
        grad_decay = torch.zeros_like(decay)
        torch.mul(grad_drive[1:], states[:-1], out=grad_decay[1:])
        return grad_decay, grad_drive


@dataclass(frozen=True)
class _Direction:
    """The parameters that one direction does not share with the other; ``reverse`` runs against time."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: Tensor
    D: Tensor
    reverse: bool


class MambaBlock(nn.Module):
    """A Mamba mixer that reads the tokens forwards in time.

    Args:
        width: Channels of a token, in and out.
        state: States per inner channel.
        expand: Inner channels per channel.
        kernel: Length of the causal convolution, in tokens.
    """

    def __init__(self, width: int, state: int, expand: int = 2, kernel: int = 4) -> None:
        super().__init__()
        self.inner = expand * width
        self.state = state
        self.kernel = kernel
        self.rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv1d = self._make_conv1d()
        self.x_proj = self._make_x_proj()
        self.dt_proj = self._make_dt_proj()
        self.A_log = self._make_log_rates()
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def directions(self) -> tuple[_Direction, ...]:
        """Return the parameters of each direction that is read."""
        return (_Direction(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, reverse=False),)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Mix the tokens of each sequence.

        Args:
            tokens: (N, L, width) float.
            mask: (N, L) bool, False for padding, which stands at the end and has no effect on the other tokens.

        Returns:
            (N, L, width) float; what stands at padding is of no use.
        """
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)
        valid = mask.unsqueeze(-1)
        # Zeros at the padding are what the convolution of the backward direction meets before the last token.
        mixed = self._scan(x * valid, valid)
        out: Tensor = self.out_proj(mixed * F.silu(gate))
        return out

    def _scan(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return the sum over the directions of their selective scans, (N, L, inner), in one loop over time."""
        ways = self.directions()
        u = self._convolve([x.flip(1) if way.reverse else x for way in ways], ways)
        valid = torch.stack([valid.flip(1) if way.reverse else valid for way in ways])

        selected = _project(u, torch.stack([way.x_proj.weight for way in ways]))
        step, B, C = torch.split(selected, [self.rank, self.state, self.state], dim=-1)
        step_bias = torch.stack([way.dt_proj.bias for way in ways])[:, None, None]
        step = _project(step, torch.stack([way.dt_proj.weight for way in ways])) + step_bias
        delta = F.softplus(step) * valid

        y = selective_scan(
            _time_first(u),
            _time_first(delta),
            -torch.exp(torch.stack([way.A_log for way in ways])),
            _time_first(B),
            _time_first(C),
            torch.stack([way.D for way in ways]),
        )
        outputs = zip(y.permute(1, 2, 0, 3), ways, strict=True)
        return torch.stack([out.flip(1) if way.reverse else out for out, way in outputs]).sum(0)

    def _convolve(self, sequences: Sequence[Tensor], ways: Sequence[_Direction]) -> Tensor:
        """Run each direction's causal depthwise convolution over its own sequence, (G, N, L, inner)."""
        channels = torch.cat(list(sequences), dim=-1).transpose(1, 2)
        convolved = F.conv1d(
            F.pad(channels, (self.kernel - 1, 0)),
            torch.cat([way.conv1d.weight for way in ways]),
            torch.cat([way.conv1d.get_parameter("bias") for way in ways]),
            groups=channels.shape[1],
        )
        return F.silu(torch.stack(convolved.transpose(1, 2).chunk(len(ways), dim=-1)))

    def _make_conv1d(self) -> nn.Conv1d:
        return nn.Conv1d(self.inner, self.inner, self.kernel, groups=self.inner)

    def _make_x_proj(self) -> nn.Linear:
        return nn.Linear(self.inner, self.rank + 2 * self.state, bias=False)

    def _make_dt_proj(self) -> nn.Linear:
        """Return the projection to step sizes, whose bias spreads them evenly in log over the usual range."""
        projection = nn.Linear(self.rank, self.inner)
        nn.init.uniform_(projection.weight, -(self.rank**-0.5), self.rank**-0.5)
        shortest, longest = (math.log(step) for step in _STEP_RANGE)
        steps = torch.exp(torch.rand(self.inner) * (longest - shortest) + shortest)
        with torch.no_grad():
            projection.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        return projection

    def _make_log_rates(self) -> nn.Parameter:
        rates = torch.arange(1, self.state + 1, dtype=torch.float32)
        return nn.Parameter(torch.log(rates).repeat(self.inner, 1))


class BidirectionalMixer(MambaBlock):
    """A Mamba mixer that reads the tokens forwards and backwards; both share ``in_proj`` and ``out_proj``.

    The backward direction's own parameters are ``conv1d_b``, ``x_proj_b``, ``dt_proj_b``, ``A_b_log`` and ``D_b``.

    Args:
        width: Channels of a token, in and out.
        state: States per inner channel.
        expand: Inner channels per channel.
        kernel: Length of the causal convolution, in tokens.
    """

    def __init__(self, width: int, state: int, expand: int = 2, kernel: int = 4) -> None:
        super().__init__(width, state, expand, kernel)
        self.conv1d_b = self._make_conv1d()
        self.x_proj_b = self._make_x_proj()
        self.dt_proj_b = self._make_dt_proj()
        self.A_b_log = self._make_log_rates()
        self.D_b = nn.Parameter(torch.ones(self.inner))

    def directions(self) -> tuple[_Direction, ...]:
        """Return the parameters of the forward and of the backward direction."""
        backward = _Direction(self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, reverse=True)
        return (*super().directions(), backward)


class BidirectionalMamba(nn.Module):
    """The block of VideoMamba: tokens + mixer(norm(tokens)).

    Args:
        width: Channels of a token.
        state: States per inner channel.
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = BidirectionalMixer(width, state)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Mix the tokens of each sequence in both directions.

        Args:
            tokens: (N, L, width) float.
            mask: (N, L) bool, False for padding, which stands at the end and has no effect on the other tokens.

        Returns:
            (N, L, width) float; what stands at padding is of no use.
        """
        mixed: Tensor = tokens + self.mixer(self.norm(tokens), mask)
        return mixed


def _project(sequences: Tensor, weights: Tensor) -> Tensor:
    """Apply each direction's own linear map: (G, N, L, in) by (G, out, in) to (G, N, L, out)."""
    return torch.matmul(sequences, weights.transpose(1, 2).unsqueeze(1))


def _time_first(sequences: Tensor) -> Tensor:
    """(G, N, L, ...) to (L, G, N, ...), so that a time step is one piece of memory."""
    return sequences.permute(2, 0, 1, 3).contiguous()
