"""``diffvqa report``: everything about a data set and its model in one HTML file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        path: The file.
        size: Its bytes.
        held_out: Number of videos that were tested on; 0 where there is no model yet.
        seconds: How long it took.
    """

    path: Path
    size: int
    held_out: int
    seconds: float


def report(
    name: str,
    settings: Settings,
    *,
    out: Path | None = None,
    model: str | None = None,
    evaluations: Sequence[Path] = (),
) -> ReportSummary:
    """Write the report of a data set; what is not there yet is left out.

    Args:
        name: Of the data set.
        settings: The runtime.
        out: The file; ``runs/<name>/report.html`` when None.
        model: Data set whose model to tell of, or a model folder; the data set's own when None.
        evaluations: Files of ``evaluate --json``; every ``evaluation*.json`` in the data set's folder when empty.

    Raises:
        DatasetError: The data set is not prepared.
        ConfigError: The model was not trained on the data set, or a file holds no evaluation.
        CacheError: The features are damaged.
        RegressorFolderError: The model is damaged.
        OutputError: The file cannot be written.
    """
    from diffvqa.cache._atomic import atomic_write_bytes
    from diffvqa.pipeline._report.content import gather
    from diffvqa.pipeline._report.page import render
    from diffvqa.pipeline._runs import DatasetRun

    begun = time.monotonic()
    runs = settings.runtime.runs
    content = gather(name, runs, model=model, evaluations=evaluations)
    path = out or DatasetRun(runs, name).folder / "report.html"
    page = render(content).encode(errors="replace")  # names that are no Unicode show a question mark
    atomic_write_bytes(path, page)
    held_out = len(content.trained.held_out) if content.trained is not None else 0
    return ReportSummary(path, len(page), held_out, time.monotonic() - begun)


def command(
    name: Annotated[str, typer.Argument(help="A prepared data set.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file (default: runs/NAME/report.html).", show_default=False, dir_okay=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Data set whose model to tell of, or a folder (default: NAME's own).", show_default=False
        ),
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation",
            help="A file of 'evaluate --json'; may be repeated (default: runs/NAME/evaluation*.json).",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Write everything about a data set and its model into one HTML file."""
    from diffvqa.pipeline._console import in_words, show_json, tell

    settings = options.settings_from(config, assignments, {"runtime.runs": runs}, show=show_config)
    summary = report(name, settings, out=out, model=model, evaluations=evaluation or ())
    if as_json:
        show_json({"report": str(summary.path), "bytes": summary.size, "held_out": summary.held_out})
        return
    tell(
        f"{name}: {summary.held_out} held-out videos, {summary.size / 1e6:.1f} MB, {in_words(summary.seconds)}",
        f"report: {summary.path}",
        *([] if summary.held_out else [f"next: diffvqa train {name}"]),
    )
