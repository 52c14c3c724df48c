"""What decoding has to know of the recipe of an extraction."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from diffvqa.stages._extract_recipe import DecoderChoice


class SamplingRecipe(Protocol):
    """The settings of :class:`~diffvqa.stages._extract_recipe.ExtractRecipe` that decoding looks at."""

    @property
    def frames(self) -> int: ...  # described in the recipe, as are all below
    @property
    def frames_per_second(self) -> float: ...
    @property
    def min_frames(self) -> int: ...
    @property
    def good_frames(self) -> float: ...
    @property
    def decoder(self) -> DecoderChoice: ...
    @property
    def view_size(self) -> int: ...
    @property
    def crops(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Sampling:
    """These settings by themselves, as plain values: decode workers would import the recipe longer than all else."""

    frames: int
    frames_per_second: float
    min_frames: int
    good_frames: float
    decoder: DecoderChoice
    view_size: int
    crops: int
    seed: int

    @classmethod
    def of(cls, recipe: SamplingRecipe) -> Sampling:
        """Return those of a recipe."""
        return cls(**{field.name: getattr(recipe, field.name) for field in fields(cls)})
