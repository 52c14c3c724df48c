"""Selective state spaces (Mamba), in one direction and in both.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023); for the two directions Zhu et
al., "Vision Mamba" (2024) and Li et al., "VideoMamba" (2024). Parameters are named as in ``mamba-ssm`` and, for the
backward direction, as in VideoMamba.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffvqa.stages._scan.inputs import ConvInputs, ScanInputs
from diffvqa.stages._scan.selective_scan import ScanChoice, choose_scan, convolve, selective_scan

_STEP_RANGE = (1e-3, 1e-1)


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
        scan: How to run the scan; by default the fastest way for the tokens that come.
    """

    def __init__(
        self, width: int, state: int, expand: int = 2, kernel: int = 4, scan: ScanChoice | None = None
    ) -> None:
        super().__init__()
        self.scan = scan
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
        choice = self.scan or choose_scan(tokens.device, self.in_proj.weight.dtype)
        ways = self.directions()
        reverse = tuple(way.reverse for way in ways)
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)
        filters = torch.stack([way.conv1d.weight.squeeze(1) for way in ways])
        filter_bias = torch.stack([way.conv1d.get_parameter("bias") for way in ways])
        u = convolve(choice, ConvInputs(x, filters, filter_bias, mask, reverse))

        selected = _project(u, torch.stack([way.x_proj.weight for way in ways]))
        step, B, C = torch.split(selected, [self.rank, self.state, self.state], dim=-1)
        mixed = selective_scan(
            choice,
            ScanInputs(
                u=u,
                step=_project(step, torch.stack([way.dt_proj.weight for way in ways])),
                A=-torch.exp(torch.stack([way.A_log for way in ways])),
                B=B,
                C=C,
                D=torch.stack([way.D for way in ways]),
                gate=gate,
                step_bias=torch.stack([way.dt_proj.bias for way in ways]),
                mask=mask,
                reverse=reverse,
            ),
        )
        out: Tensor = self.out_proj(mixed)
        return out

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
        scan: How to run the scan; by default the fastest way for the tokens that come.
    """

    def __init__(
        self, width: int, state: int, expand: int = 2, kernel: int = 4, scan: ScanChoice | None = None
    ) -> None:
        super().__init__(width, state, expand, kernel, scan)
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
        scan: How to run the scan; by default the fastest way for the tokens that come.
    """

    def __init__(self, width: int, state: int, scan: ScanChoice | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = BidirectionalMixer(width, state, scan=scan)

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
    projected = torch.bmm(sequences.flatten(1, 2), weights.transpose(1, 2))
    return projected.reshape(*sequences.shape[:3], -1)
