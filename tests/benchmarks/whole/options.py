"""What a part of the run is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """How much to measure, and where.

    Attributes:
        folder: Empty; deleted afterwards.
        quick: Seconds in the place of minutes: shows that everything works, its figures say nothing.
    """

    folder: Path
    quick: bool = False

    @property
    def rounds(self) -> int:
        """Repeats of every timing."""
        return 1 if self.quick else 3

    @property
    def recipe(self) -> dict[str, Any]:
        """Settings of the extraction that are not the defaults."""
        return {"extract.frames": 2, "extract.crops": 1, "extract.view_size": 64} if self.quick else {}

    @property
    def assignments(self) -> list[str]:
        """The same as options of a command."""
        return [word for key, value in self.recipe.items() for word in ("--set", f"{key}={value}")]
