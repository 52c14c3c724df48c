"""``diffvqa metrics``: how well the predictions of any table agree with its true scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.stages._bootstrap import Interval
    from diffvqa.stages._metrics import Metrics

_FIGURES = ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted")
_HEADINGS = ("SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted")


def metrics_json(metrics: Metrics, intervals: dict[str, Interval] | None = None) -> dict[str, Any]:
    """Return the metrics as JSON: ``srcc``, ``krcc``, ``plcc``, ``plcc_fitted``, ``rmse_fitted``, ``n``, ``reason``.

    Args:
        metrics: An undefined figure becomes null, and ``reason`` says why.
        intervals: By figure; they go under ``intervals``, each as [low, high].
    """
    from diffvqa.stages._json_values import without_nan

    content: dict[str, Any] = asdict(metrics)
    if intervals is not None:
        content["intervals"] = {name: [interval.low, interval.high] for name, interval in intervals.items()}
    finite: dict[str, Any] = without_nan(content)
    return finite


def read_columns(file: Path, names: Sequence[str]) -> list[list[float]]:
    """Read columns of numbers of a CSV file; NaN and infinity count as numbers.

    Raises:
        DatasetError: The file is no such table, or a cell is no number; the message gives the line.
    """
    from diffvqa.pipeline._csv_table import read_csv_table
    from diffvqa.pipeline._errors import DatasetError, did_you_mean

    table = read_csv_table(file, delimiters=",;\t")
    for name in names:
        if name not in table.columns:
            hint = did_you_mean(name, table.columns) or f"It has: {', '.join(table.columns)}."
            raise DatasetError(f"{file} has no column '{name}'.", hint)
    columns = []
    for name in names:
        values = []
        for row, cell in enumerate(table.columns[name]):
            try:
                values.append(float(cell))
            except ValueError as error:
                where = table.where(row, name)
                raise DatasetError(f"{where}: '{cell}' is no number.", "Correct or remove it.") from error
        columns.append(values)
    return columns


def command(
    file: Annotated[Path, typer.Argument(help="CSV file with a header.", show_default=False)],
    true: Annotated[str, typer.Option("--true", help="Column of the true scores.")] = "true",
    predicted: Annotated[str, typer.Option("--predicted", help="Column of the predictions.")] = "predicted",
    resamples: Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap; 0 for no intervals.")] = 1000,
    level: Annotated[float, typer.Option("--level", min=0.01, max=0.999, help="Of the confidence intervals.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Compare the predictions of a table with its true scores: SRCC, KRCC, PLCC, RMSE, with confidence intervals."""
    from diffvqa.stages._bootstrap import bootstrap_intervals
    from diffvqa.stages._metrics import correlation_metrics

    y, x = read_columns(file, (true, predicted))
    metrics = correlation_metrics(y, x)
    intervals = bootstrap_intervals(y, x, resamples=resamples, level=level, seed=seed)
    if as_json:
        typer.echo(json.dumps(metrics_json(metrics, intervals if resamples else None), indent=2, allow_nan=False))
        return
    for name, heading in zip(_FIGURES, _HEADINGS, strict=True):
        value = getattr(metrics, name)
        interval = f"  [{intervals[name].low:.4f}, {intervals[name].high:.4f}]" if name in intervals else ""
        typer.echo(f"{heading:<12} {value:.4f}{interval}")
    typer.echo(f"{'n':<12} {metrics.n}")
    if metrics.reason:
        typer.echo(f"note: {metrics.reason}")
    if intervals:
        typer.echo(f"in brackets: {level:.0%} bootstrap intervals, {resamples} resamples")
