"""The two files of a run: ``benchmarks.json`` for programs and ``benchmarks.md`` for people.

What stands in ``benchmarks.md`` from its line ``<!-- written by hand -->`` on is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from diffvqa.cache._atomic import atomic_write_text

from .figures import Machine, Panel, Part, Target, WholeRun
from .show import verdict

PAGE, FIGURES = "benchmarks.md", "benchmarks.json"
BY_HAND = "<!-- written by hand -->"


def write_pages(run: WholeRun, folder: Path) -> None:
    """Write both files into a folder, which is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    kept = _written_by_hand(page.read_text(encoding="utf-8")) if page.is_file() else ""
    atomic_write_text(folder / FIGURES, run.model_dump_json(indent=1) + "\n")
    atomic_write_text(page, "\n".join(_page(run)) + f"\n\n{BY_HAND}\n{kept}")


def _written_by_hand(text: str) -> str:
    _, _, kept = text.partition(f"{BY_HAND}\n")
    return kept


def _page(run: WholeRun) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield (
        f"Written by `make bench` on {run.date} in {run.seconds / 60:.0f} minutes; [{FIGURES}]({FIGURES}) holds every "
        f"repeat. Every figure is the median of {run.rounds} repeats with, in brackets, the least and the most. What "
        "is compared was measured in turns in one run: the ratios say more than the times, which are this machine's."
    )
    if run.quick:
        yield ""
        yield "**This was a quick run, which shows that everything works: its figures say nothing.**"
    yield ""
    yield from _machine(run.machine)
    yield ""
    yield "## Targets"
    yield ""
    targets = [target for part in run.parts for target in part.result.targets]
    yield from _lines(("what", "measured", "wanted", ""), map(_target_cells, targets))
    for part in run.parts:
        yield ""
        yield from _part(part)


def _machine(machine: Machine) -> Iterator[str]:
    software = ", ".join(f"{name} {version}" for name, version in machine.software.items())
    yield (
        f"Measured on: {machine.processor}, {machine.cores} cores, {machine.memory / 2**30:.0f} GiB of memory, GPU: "
        f"{machine.gpu}; {machine.system}; {software}."
    )


def _part(part: Part) -> Iterator[str]:
    yield f"## {part.title}"
    for panel in part.result.panels:
        yield ""
        yield from _panel(panel)


def _panel(panel: Panel) -> Iterator[str]:
    yield f"{panel.title[:1].upper()}{panel.title[1:]}:"
    yield ""
    rows = ((row.name, *("" if cell is None else str(cell) for cell in row.cells)) for row in panel.rows)
    yield from _lines(panel.columns, rows)
    if panel.note:
        yield ""
        yield panel.note


def _target_cells(target: Target) -> tuple[str, ...]:
    return target.claim, str(target.measured), target.wanted, verdict(target)


def _lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"| --- |{' ---: |' * (len(headings) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
