"""The state of a training between two epochs, as a file: it goes on from there as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffvqa.stages._tensor_file import TensorFile


@dataclass(frozen=True)
class EpochRecord:
    """One point of the training curve.

    Attributes:
        epoch: From 0.
        learning_rate: At the end of the epoch.
        train_loss: Mean over the epoch's batches.
        validation_srcc: Mean over the data sets; NaN where it is undefined.
        validation_plcc: Raw, likewise.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_srcc: float
    validation_plcc: float

    @property
    def value(self) -> float:
        """What the best epoch is chosen by: SRCC + PLCC on the validation part."""
        return self.validation_srcc + self.validation_plcc


@dataclass(frozen=True)
class FitState:
    """All that a training is after some epochs.

    Attributes:
        tensors: By name: weights, averaged and best weights, the optimiser's moments, states of random generators.
        numbers: JSON: counters of the schedule and of the precision's scale.
        best_epoch: So far; None before one has a value.
        curve: One record per finished epoch.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    best_epoch: int | None
    curve: tuple[EpochRecord, ...] = field(default=())

    def save(self, path: Path) -> None:
        """Write the state to one safetensors file, atomically.

        Raises:
            OutputError: It cannot be written.
        """
        values = {
            "numbers": self.numbers,
            "best_epoch": self.best_epoch,
            "curve": [[getattr(record, each.name) for each in fields(record)] for record in self.curve],
        }
        TensorFile(self.tensors, values).save(path)

    @classmethod
    def load(cls, path: Path) -> FitState | None:
        """Read a state back; None where there is none, or it is damaged."""
        stored = TensorFile.load(path)
        if stored is None:
            return None
        try:
            curve = tuple(EpochRecord(*record) for record in stored.values["curve"])
            return cls(dict(stored.tensors), stored.values["numbers"], stored.values["best_epoch"], curve)
        except (KeyError, TypeError):
            return None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix.``, without it."""
        return TensorFile(self.tensors, {}).part(prefix)


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the tensors, each name preceded by ``prefix.``; the inverse of :meth:`FitState.part`."""
    return {f"{prefix}.{name}": tensor.detach().clone() for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state of each parameter, by number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.ndim > 1:  # files hold no memory layout, and fused steps expect the parameter's
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
