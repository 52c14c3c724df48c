"""The run that measures every claim of speed: its lightest part in small, and the pages it writes."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.whole.figures import Machine, Measured, Panel, Part, PartResult, Row, Target, WholeRun
from benchmarks.whole.pages import BY_HAND, FIGURES, PAGE, write_pages
from benchmarks.whole.parts import TITLES

ROOT = Path(__file__).parents[2]
LIGHTEST = "raw_storage"


def test_a_part_measures_something_and_is_written_down(tmp_path: Path) -> None:
    """In small, and the lightest: its figures say nothing about speed, but every one of them is there.

    All parts in small, ``make bench ARGS='--quick --out folder'``, take minutes: they start many programs.
    """
    command = [sys.executable, "-m", "tests.benchmarks.whole", "--quick", "--only", LIGHTEST, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run = WholeRun.model_validate_json((tmp_path / FIGURES).read_text())
    assert [part.name for part in run.parts] == [LIGHTEST]
    for part in run.parts:
        assert part.result.panels, part.name
        for where, figure in figures_of(part):
            assert all(map(math.isfinite, figure.values)), f"{part.name}: {where}"
            assert "exponent" in where or min(figure.values) > 0, f"{part.name}: {where}"
    page = (tmp_path / PAGE).read_text()
    assert f"## {TITLES[LIGHTEST]}" in page
    assert "quick run" in page
    assert str(ROOT) not in page + (tmp_path / FIGURES).read_text()


def test_a_part_whose_figures_are_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module("benchmarks.whole.__main__")
    measured: list[str] = []

    def measure(name: str, **_: object) -> Part:
        measured.append(name)
        return run_of(1.5).parts[0].model_copy(update={"name": name})

    monkeypatch.setattr(whole, "run_part", measure)
    first, second = (
        whole.run_parts(names, quick=False, folder=None, keep=tmp_path / "kept")
        for names in (["start_up"], ["start_up", "growth"])
    )
    assert measured == ["start_up", "growth"]
    assert second.parts[0] == first.parts[0]


@pytest.mark.parametrize("name", TITLES)
def test_every_part_has_its_module(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.whole.part_{name}").measure)


def figures_of(part: Part) -> Iterator[tuple[str, Measured]]:
    for panel in part.result.panels:
        for row in panel.rows:
            assert len(row.cells) == len(panel.columns) - 1, f"{panel.title}: {row.name}"
            for heading, cell in zip(panel.columns[1:], row.cells, strict=True):
                if cell is not None:
                    yield f"{panel.title}: {row.name}, {heading}", cell
    for target in part.result.targets:
        yield target.claim, target.measured


def run_of(*values: float) -> WholeRun:
    measured = Measured(values=values, unit="s")
    panel = Panel(title="a thing", columns=("what", "time", "of what"), rows=(Row(name="it", cells=(measured, None)),))
    target = Target(claim="it", measured=measured, bound=2.0)
    part = Part(name="one", title="One", seconds=1, result=PartResult(panels=(panel,), targets=(target,)))
    machine = Machine(processor="a chip", cores=2, memory=2**30, gpu="none", system="an OS", software={"torch": "2"})
    return WholeRun(date="2026-01-31", quick=False, rounds=3, seconds=60, machine=machine, parts=(part,))


def test_the_page_shows_medians_with_their_spread_and_whether_a_target_is_met(tmp_path: Path) -> None:
    write_pages(run_of(1.0, 3.0, 1.5), tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "| it | 1.50 s (1.00 to 3.00) |  |" in page
    assert "| it | 1.50 s (1.00 to 3.00) | at most 2.00 s | met |" in page
    assert "a chip, 2 cores, 1 GiB" in page
    write_pages(run_of(2.5), tmp_path)
    assert "| it | 2.50 s | at most 2.00 s | MISSED |" in (tmp_path / PAGE).read_text()


def test_what_was_written_by_hand_is_kept(tmp_path: Path) -> None:
    write_pages(run_of(1.0), tmp_path)
    page = tmp_path / PAGE
    assert page.read_text().endswith(f"{BY_HAND}\n")
    page.write_text(page.read_text() + "\n## Tried\n\nNothing yet.\n")
    write_pages(run_of(1.75), tmp_path)
    assert page.read_text().endswith(f"{BY_HAND}\n\n## Tried\n\nNothing yet.\n")
    assert "1.75 s" in page.read_text()
    assert "1.00 s" not in page.read_text()


def test_a_ratio_is_taken_repeat_by_repeat() -> None:
    """What slowed down both of a round is in neither ratio."""
    ours, theirs = Measured(values=(1.0, 2.0), unit="s"), Measured(values=(3.0, 6.0), unit="s")
    assert theirs.over(ours) == Measured(values=(3.0, 3.0), unit="x")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.01234, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert str(Measured(values=(value,))) == text
