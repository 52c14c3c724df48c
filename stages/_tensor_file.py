"""One safetensors file of tensors with JSON beside them: how the states of trainings are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffvqa.cache._atomic import atomic_output

_VALUES = "values"


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name, and values that are JSON, by name.

    Attributes:
        tensors: On any device; on the CPU once they are read back.
        values: Numbers, texts, lists and objects.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write all of it to one file, atomically.

        Raises:
            OutputError: It cannot be written.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        # One entry: the order of several would differ from one writing to the next.
        with atomic_output(path) as temporary:
            save_file(tensors, temporary, {_VALUES: json.dumps(self.values)})

    @classmethod
    def load(cls, path: Path) -> TensorFile | None:
        """Read a file back; None where there is none, or it is damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                values = json.loads((file.metadata() or {})[_VALUES])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return cls(tensors, values)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix.``, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}
