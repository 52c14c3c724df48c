"""What a part of the run measures: figures with their repeats, in tables, and targets that they meet or miss."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

_DIGITS = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Frozen):
    """A figure that was measured several times.

    Attributes:
        values: Each repeat, in the order of measuring.
        unit: Such as ``s`` or ``MB``; ``x`` for ratios, empty for counts and exponents.
    """

    values: tuple[float, ...]
    unit: str = ""

    @property
    def median(self) -> float:
        """What is quoted."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Return the median and, of several repeats, the least and the most."""
        unit = f" {self.unit}" if self.unit else ""
        low, high = in_digits(min(self.values)), in_digits(max(self.values))
        spread = f" ({low} to {high})" if low != high else ""
        return f"{in_digits(self.median)}{unit}{spread}"

    def over(self, other: Measured) -> Measured:
        """Return how many times as much this is as another figure, repeat by repeat."""
        return Measured(
            values=tuple(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)), unit="x"
        )

    def times(self, factor: float, unit: str) -> Measured:
        """Return the same in another unit."""
        return Measured(values=tuple(value * factor for value in self.values), unit=unit)


class Row(_Frozen):
    """One line of a table; a cell is empty where there is nothing to compare with."""

    name: str
    cells: tuple[Measured | None, ...]


class Panel(_Frozen):
    """One table.

    Attributes:
        title: What was measured, on what.
        columns: Headings of all columns, that of the names first.
        rows: The figures.
        note: What must be known to read them.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


class Target(_Frozen):
    """What a figure should be.

    Attributes:
        claim: Of what.
        measured: The figure.
        bound: At most, or at least.
        at_most: Which of the two.
    """

    claim: str
    measured: Measured
    bound: float
    at_most: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the median is within the bound."""
        median = self.measured.median
        return median <= self.bound if self.at_most else median >= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        unit = f" {self.measured.unit}" if self.measured.unit else ""
        return f"{'at most' if self.at_most else 'at least'} {in_digits(self.bound)}{unit}"


class PartResult(_Frozen):
    """What a part of the run found."""

    panels: tuple[Panel, ...]
    targets: tuple[Target, ...] = ()


class Part(_Frozen):
    """A part of the run, done.

    Attributes:
        name: What the command line calls it.
        title: What it answers.
        seconds: How long it took.
        result: What it found.
    """

    name: str
    title: str
    seconds: float
    result: PartResult


class Machine(_Frozen):
    """What was measured on; ``memory`` in bytes."""

    processor: str
    cores: int
    memory: int
    gpu: str
    system: str
    software: dict[str, str]


class WholeRun(_Frozen):
    """All that one run measured.

    Attributes:
        date: Of its end, such as ``2026-01-31``.
        quick: Whether it was too short for its figures to say anything.
        rounds: Repeats of every timing.
        seconds: How long it took.
        machine: What was measured on.
        parts: In the order of the list of parts.
    """

    date: str
    quick: bool
    rounds: int
    seconds: float
    machine: Machine
    parts: tuple[Part, ...]


def seconds(values: Sequence[float]) -> Measured:
    """Return repeats of a duration."""
    return Measured(values=tuple(values), unit="s")


def megabytes(sizes: Sequence[float]) -> Measured:
    """Return repeats of a number of bytes."""
    return Measured(values=tuple(size / 1e6 for size in sizes), unit="MB")


def count(number: float) -> Measured:
    """Return what was counted, not measured."""
    return Measured(values=(float(number),))


def in_digits(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) < 1:
        return f"{value:.{_DIGITS}g}"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, _DIGITS - whole)}f}"
