"""What the user sees: log lines and progress on standard error, tables and results on standard output."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport(Protocol):
    """What long work tells while it goes on."""

    def advance(self, *, failed: bool = False) -> None:
        """Count one more item as finished, perhaps by failing."""

    def set(self, done: int, total: int, note: str = "") -> None:
        """Say that ``done`` of ``total`` items are finished; ``note`` is shown beside it."""

    def go_on(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` items were finished before now: they do not count in the rate."""


@functools.cache
def error_console() -> Console:
    """Return the console on standard error: one for log and progress, so that a log line does not tear a bar."""
    return Console(stderr=True, highlight=False)


def output_console() -> Console:
    """Return the console on standard output; without a terminal, tables keep their full width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def configure_logging(*, debug: bool = False) -> None:
    """Send the log to standard error: coloured on a terminal, plain lines elsewhere."""
    console = error_console()
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("diffvqa")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    root.propagate = False


def hush() -> None:
    """Show warnings and errors alone from here on: no progress, no summaries."""
    logging.getLogger("diffvqa").setLevel(logging.WARNING)


def is_hushed() -> bool:
    """Return whether only warnings and errors are to be shown; so it is, too, where no command line runs."""
    return not logger.isEnabledFor(logging.INFO)


def tell(*parts: str | Table, error: bool = False) -> None:
    """Show parts of a summary, unless only warnings and errors are to be shown.

    Args:
        parts: Lines, shown as they are, and tables.
        error: On standard error, where standard output is for rows that another program reads.
    """
    if is_hushed():
        return
    console = error_console() if error else output_console()
    for part in parts:
        if isinstance(part, str):
            typer.echo(part, err=error)
        else:
            console.print(part)


def show_json(content: Mapping[str, Any]) -> None:
    """Show a summary as JSON on standard output, for another program to read."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False))


@contextmanager
def progress(description: str, total: int = 0) -> Iterator[ProgressReport]:
    """Show how far ``total`` items are: on a terminal a bar with rate and time left, elsewhere a log line now and then.

    Args:
        description: What is going on.
        total: Items in all; 0 where the work will say so itself.
    """
    console = error_console()
    if not console.is_terminal:
        yield _LoggedProgress(description, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Rows for another program, written to standard output meanwhile, must not be drawn into the bar.
    rows_go_elsewhere = not sys.stdout.isatty()
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=not rows_go_elsewhere, disable=is_hushed()
    ) as bar:
        yield _BarProgress(bar, description, total)


def failure_table(failures: Iterable[tuple[str, str, str]]) -> Table:
    """Return a table of what failed.

    Args:
        failures: (video, reason, detail) of each; shown as they are, never as markup.
    """
    table = Table("video", "reason", "detail", title="could not be used", title_justify="left")
    for failure in failures:
        table.add_row(*(Text(cell) for cell in failure))
    return table


def in_words(seconds: float) -> str:
    """Return a duration such as ``8.3 s`` or ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


class _RateColumn(ProgressColumn):
    """Items per second, or seconds per item."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed or 0.0))


class _BarProgress:
    def __init__(self, bar: Progress, description: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(description, total=total or None, note="")
        self._failed = 0
        self._lock = threading.Lock()

    def advance(self, *, failed: bool = False) -> None:
        with self._lock:
            self._failed += failed
            self._bar.update(self._task, advance=1, note=f"{self._failed} failed" if self._failed else "")

    def set(self, done: int, total: int, note: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, note=note)

    def go_on(self, done: int, total: int) -> None:
        self._bar.reset(self._task, completed=done, total=total, note="")


class _LoggedProgress:
    def __init__(self, description: str, total: int) -> None:
        self._description = description
        self._total = total
        self._done = self._before = 0
        self._failed = 0
        self._begun = self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, *, failed: bool = False) -> None:
        with self._lock:
            self._failed += failed
            self.set(self._done + 1, self._total, f"{self._failed} failed" if self._failed else "")

    def set(self, done: int, total: int, note: str = "") -> None:
        self._done, self._total = done, total
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES and done < total:
            return
        self._last_line = now
        rate = (done - self._before) / max(now - self._begun, 1e-9)
        left = f"{in_words((total - done) / rate)} left" if rate > 0 and done < total else ""
        parts = (f"{self._description} {done}/{total}", _rate(rate) if rate > 0 else "", left, note)
        logger.info(", ".join(part for part in parts if part))

    def go_on(self, done: int, total: int) -> None:
        self._done = self._before = done
        self._total = total
        self._begun = self._last_line = time.monotonic()


def _rate(per_second: float) -> str:
    if per_second <= 0:
        return "0/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
