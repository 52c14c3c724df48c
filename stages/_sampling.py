"""What decoding has to know of the recipe of an extraction."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffvqa.stages._extract_recipe import DecoderChoice, ExtractRecipe


@dataclass(frozen=True)
class Sampling:
    """Some settings of the recipe as plain values: decode workers would import its own class longer than all else."""

    frames: int
    frames_per_second: float
    min_frames: int
    good_frames: float
    decoder: DecoderChoice
    view_size: int
    crops: int
    seed: int

    @classmethod
    def of(cls, recipe: ExtractRecipe) -> Sampling:
        """Return those of a recipe."""
        return cls(**{field.name: getattr(recipe, field.name) for field in fields(cls)})
