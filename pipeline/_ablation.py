"""``diffvqa train --ablate``: what each block of the regressor contributes, on the same splits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffvqa.pipeline._tables import PlainTable
from diffvqa.stages._json_values import without_nan

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings
    from diffvqa.stages._metrics import Metrics

ABLATION_FILE = "ablation.json"


@dataclass(frozen=True)
class AblationRow:
    """How one variant of the regressor does.

    Attributes:
        variant: Such as ``without tdm``.
        median: Of each test metric over the splits.
        difference: Median over the splits of its SRCC minus the full regressor's on the same split; NaN if undefined.
    """

    variant: str
    median: Metrics
    difference: float


@dataclass(frozen=True)
class AblationSummary:
    """How the variants do on the first data set that was named.

    Attributes:
        dataset: Whose test videos.
        splits: Number of them.
        rows: The full regressor first.
        folder: Where the table lies, as text, CSV, Markdown, LaTeX and JSON.
    """

    dataset: str
    splits: int
    rows: tuple[AblationRow, ...]
    folder: Path

    def table(self) -> PlainTable:
        """Return the table."""
        return PlainTable(
            headings=(("regressor", "SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted", "SRCC minus full"),),
            rows=tuple((row.variant, *_figures(row)) for row in self.rows),
        )


def ablate(
    names: Sequence[str],
    settings: Settings,
    *,
    cache: str | None = None,
    splits_file: Path | None = None,
    random_splits: bool = False,
) -> AblationSummary:
    """Train every variant of the recipe's regressor on the same splits and write ``runs/<name>/ablation``.

    Args:
        names: Of the data sets.
        settings: Recipe and runtime.
        cache: The features, for a single data set; ``runs/<name>/features`` when None.
        splits_file: Splits to use, as in training.
        random_splits: Use random ones even where a data set has official ones.

    Raises:
        DiffVQAError: As in training.
    """
    from diffvqa.cache._atomic import atomic_write_text
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._labelled import load_labelled
    from diffvqa.pipeline._regressor_training import TrainingWork, regressor_trainer
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.stages._train_recipe import ablations
    from diffvqa.stages._training_journal import TrainingJournal

    run = DatasetRun(settings.runtime.runs, "+".join(names))
    labelled = load_labelled(names, settings.runtime.runs, cache=cache)
    chosen = labelled.splits(settings.train, file=splits_file, official=not random_splits)
    variants = ablations(settings.train)
    medians: dict[str, Metrics] = {}
    srcc: dict[str, list[float]] = {}
    journals = []
    epochs = len(variants) * settings.train.epochs * len(chosen)
    with regressor_trainer(settings) as trainer, progress(f"ablate {run.name}", epochs) as report:
        for number, (variant, recipe) in enumerate(variants.items()):
            journal = TrainingJournal(run.folder / f"ablation-{number}", labelled.identity(recipe, chosen))
            journals.append(journal)
            result = trainer.train(TrainingWork(labelled, recipe), chosen, journal, report.advance).result
            medians[variant] = result.median(names[0])
            srcc[variant] = [trained.test[names[0]].srcc for trained in result.splits]
    rows = tuple(
        AblationRow(variant, median, _median_difference(srcc[variant], srcc["full"]))
        for variant, median in medians.items()
    )
    summary = AblationSummary(names[0], len(chosen), rows, run.folder / "ablation")
    for suffix in ("txt", "csv", "md", "tex"):
        summary.table().write(summary.folder / f"ablation.{suffix}")
    stored = {"dataset": names[0], "splits": len(chosen), "rows": [asdict(row) for row in rows]}
    atomic_write_text(summary.folder / ABLATION_FILE, json.dumps(without_nan(stored), indent=2) + "\n")
    for journal in journals:
        journal.clear()
    return summary


def show(summary: AblationSummary) -> None:
    """Show the table and where it lies."""
    from diffvqa.pipeline._console import tell

    tell(
        f"{summary.dataset}: medians of {summary.splits} splits, held-out contents",
        summary.table().to_text().rstrip("\n"),
        f"table: {summary.folder}",
    )


def _figures(row: AblationRow) -> tuple[str, ...]:
    metrics = row.median
    values = (metrics.srcc, metrics.krcc, metrics.plcc, metrics.plcc_fitted, metrics.rmse_fitted)
    return (*(f"{value:.3f}" for value in values), "" if row.variant == "full" else f"{row.difference:+.3f}")


def _median_difference(variant: Sequence[float], full: Sequence[float]) -> float:
    differences = [one - other for one, other in zip(variant, full, strict=True) if not math.isnan(one - other)]
    return float(np.median(differences)) if differences else math.nan
