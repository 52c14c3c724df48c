"""The rows of the table: which features, which regressor, which photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

from .features import STORED_MANTISSA_BITS

RegressorName = Literal["svr", "own"]

WITHOUT_CONTROLLER = "nano-without-controller"
_BRISQUE = "brisque"
_REGRESSORS: tuple[RegressorName, ...] = ("svr", "own")
_COARSER = (("bfloat16", 7), ("float8", 3))  # with e4m3's bits, and exponents that no value exceeds
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Row:
    """One way to predict the scores.

    Attributes:
        name: Of its features.
        regressor: Stage two's own, or a support vector machine on pooled vectors.
        backbones: Names for ``extract.model``; their features are joined.
        extract: Further settings of the extraction.
        train: Further settings of stage two's regressor.
        views: What a vector is made of.
        with_std: Whether the maps' standard deviations are there beside their means.
        mantissa_bits: That the values of its features are rounded to, as if stored so.
        take: Photographs used; all when None.
    """

    name: str
    regressor: RegressorName
    backbones: tuple[str, ...] = ("nano",)
    extract: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    train: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    views: tuple[str, ...] = ("resize", "crop")
    with_std: bool = True
    mantissa_bits: int = STORED_MANTISSA_BITS
    take: int | None = None

    @property
    def key(self) -> str:
        """What ``--rows`` and files call it, such as ``nano/own``."""
        return f"{self.name}/{self.regressor}"

    @property
    def with_texture(self) -> bool:
        """Whether either regressor looks at the texture of a latent."""
        return bool(self.train.get("texture", True))

    @property
    def is_brisque(self) -> bool:
        """Whether its features are those of BRISQUE; of its backbone's, only the pixels of the views are looked at."""
        return self.name == _BRISQUE


def all_rows(*, few: int, take: int | None = None) -> tuple[Row, ...]:
    """Return every row, in the order of the table.

    Args:
        few: Photographs of the rows that compare one step with many.
        take: Photographs of the other rows; all when None.
    """
    rows = (row for regressor in _REGRESSORS for row in _rows(regressor, few))
    return tuple(replace(row, take=take) if row.take is None else row for row in rows)


def chosen_rows(patterns: str, *, few: int, take: int | None = None) -> tuple[Row, ...]:
    """Return the rows that one of several patterns names, such as ``nano,*/svr``; a name stands for both regressors.

    Raises:
        ValueError: A pattern names none.
    """
    rows = all_rows(few=few, take=take)
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not any(_is_named(row, pattern) for row in rows):
            known = ", ".join(dict.fromkeys(row.name for row in rows))
            raise ValueError(f"no row is named '{pattern}'; known: {known}, each with /svr or /own")
    return tuple(row for row in rows if any(_is_named(row, pattern) for pattern in wanted))


def _is_named(row: Row, pattern: str) -> bool:
    return fnmatchcase(row.key, pattern) or fnmatchcase(row.name, pattern)


def _rows(regressor: RegressorName, few: int) -> tuple[Row, ...]:
    random, nano, joined = ("nano-random",), ("nano",), ("nano", "efficientnet-lite0")
    return (
        Row(_BRISQUE, regressor, ("efficientnet-lite0",)),
        Row("random", regressor, random),
        Row("nano", regressor),
        Row("efficientnet-lite0", regressor, ("efficientnet-lite0",)),
        Row("nano+efficientnet-lite0", regressor, joined),
        *(_of_maps_alone(row) for row in _rows_of_maps(regressor, few, random, nano, joined)),
    )


def _rows_of_maps(regressor: RegressorName, few: int, *networks: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the rows that tell what the maps are worth; the latent's texture would hide their differences."""
    return (
        *(Row(f"{'+'.join(names).replace('nano-', '')}, without texture", regressor, names) for names in networks),
        Row("nano, resized view", regressor, views=("resize",), train={"branches": "resize"}),
        Row("nano, crops", regressor, views=("crop",), train={"branches": "crop"}),
        Row("nano, means only", regressor, with_std=False),
        *(Row(f"nano, as {dtype}", regressor, mantissa_bits=bits) for dtype, bits in _COARSER),
        Row("nano, up-blocks alone", regressor, extract={"middle_block": False, "residual": False}),
        *(Row(f"nano, grid {grid}", regressor, extract={"grid": grid}) for grid in (2, 4, 8)),
        Row("nano, Controller off", regressor, (WITHOUT_CONTROLLER,)),
        *(Row(f"nano, start {start}", regressor, extract={"start_timestep": start}) for start in (20, 100, 300)),
        Row("nano, 1 step", regressor, take=few),
        Row("nano, 5 steps", regressor, extract={"steps": 5, "start_timestep": 999}, take=few),
        Row("nano, 50 steps", regressor, extract={"steps": 50, "start_timestep": 999}, take=few),
    )


def _of_maps_alone(row: Row) -> Row:
    return replace(row, train={**row.train, "texture": False})
