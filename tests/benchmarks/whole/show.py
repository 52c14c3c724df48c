"""The figures as rich tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from .figures import Part, Target


def tables_of(part: Part) -> Iterator[Table]:
    """Yield the tables of a part, and one of its targets."""
    for panel in part.result.panels:
        table = Table(*panel.columns, title=panel.title, title_justify="left", caption=panel.note or None)
        for row in panel.rows:
            table.add_row(row.name, *("" if cell is None else str(cell) for cell in row.cells))
        yield table
    if part.result.targets:
        table = Table("target", "measured", "wanted", "", title=f"{part.title}: targets", title_justify="left")
        for target in part.result.targets:
            table.add_row(target.claim, str(target.measured), target.wanted, verdict(target))
        yield table


def verdict(target: Target) -> str:
    """Return whether a target is met, in a word."""
    return "met" if target.is_met else "MISSED"
