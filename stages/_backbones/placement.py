"""Where and how a backbone's networks run; changes speed, never the features beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Placement:
    """Where and how networks run.

    Attributes:
        device: To compute on.
        channels_last: Lay images out with their channels innermost.
        compiled: Compile the networks on their first call, with ``torch.compile``.
    """

    device: torch.device
    channels_last: bool = False
    compiled: bool = False

    def place(self, network: nn.Module) -> None:
        """Move a network to the device and make it run as it should, in place."""
        network.to(self.device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        if self.compiled:
            network.compile()
