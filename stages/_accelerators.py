"""Hugging Face accelerate, one training after another in the same process."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def fresh_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Return an accelerator whose settings are those of no earlier training.

    Args:
        device: Where to compute.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """
    mixed = _MIXED_PRECISION[precision]
    # Its settings are one per process, and those of an earlier training may differ; one that is going on has the same.
    if not _is_set_to(device, mixed):
        AcceleratorState._reset_state(reset_partial_state=True)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")


def _is_set_to(device: torch.device, mixed: str) -> bool:
    if not AcceleratorState._shared_state:
        return False
    state = AcceleratorState()
    return bool(state.device == device and state.mixed_precision == mixed)
