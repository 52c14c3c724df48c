"""``diffvqa train``: train the regressor on cached features, over all splits."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import options

if TYPE_CHECKING:
    from rich.table import Table

    from diffvqa.cache.reader import FeatureCache
    from diffvqa.pipeline.config import Settings
    from diffvqa.pipeline.manifest import Label, Manifest
    from diffvqa.stages.metrics import Metrics
    from diffvqa.stages.training import CrossValidation, VideoSample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSummary:
    """What was trained.

    Attributes:
        model: Folder of the trained regressors.
        label: What the scores are.
        videos: Videos trained and tested on.
        unused: Labelled videos of the data set that have no features.
        result: Metrics of every split.
        seconds: How long it took.
    """

    model: Path
    label: Label
    videos: int
    unused: int
    result: CrossValidation
    seconds: float


def train(name: str, settings: Settings, *, cache: Path | None = None) -> TrainSummary:
    """Train the regressor on a data set's features and write ``runs/<name>/model``.

    Args:
        name: The data set's.
        settings: Recipe and runtime.
        cache: The features; ``runs/<name>/features`` when None.

    Raises:
        DatasetError: The data set is not prepared.
        CacheError: There are no features, or they are damaged.
        TrainingDataError: There are too few contents, or no usable scores.
        OutputError: The model folder cannot be written.
    """
    from diffvqa.cache.reader import FeatureCache
    from diffvqa.pipeline.backbone import choose_device
    from diffvqa.pipeline.config import SETTINGS_FILE
    from diffvqa.pipeline.console import progress
    from diffvqa.pipeline.manifest import read_manifest
    from diffvqa.pipeline.runs import DatasetRun
    from diffvqa.stages.regressor_folder import save_regressors
    from diffvqa.stages.training import train_all

    begun = time.monotonic()
    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    features = FeatureCache(cache or run.features)
    samples = _labelled_with_features(manifest, features)
    unused = sum(row.score is not None for row in manifest.rows) - len(samples)
    if unused:
        logger.warning("%d labelled video(s) have no features and are left out", unused)
    recipe = settings.train
    with progress(f"train {name}", recipe.splits * recipe.epochs) as report:
        result = train_all(
            features,
            samples,
            recipe,
            choose_device(settings.runtime.device),
            on_epoch=lambda _split, _epoch: report.advance(),
        )
    extract = {
        "recipe": features.header.recipe,
        "fingerprint": features.header.fingerprint,
        "fingerprint_digest": features.header.fingerprint_digest,
    }
    label = {"name": manifest.label.name, "note": manifest.label.note}
    notes = {SETTINGS_FILE: settings.to_toml()}
    save_regressors(run.model, result, train_recipe=recipe, extract=extract, label=label, notes=notes)
    return TrainSummary(run.model, manifest.label, len(samples), unused, result, time.monotonic() - begun)


def metrics_table(result: CrossValidation, label: Label) -> Table:
    """Return the table of the test metrics of every split, and their medians.

    Args:
        result: Of the training.
        label: What the scores are; stands in the title.
    """
    from rich.table import Table

    table = Table(title=f"held-out contents, against {label}", title_justify="left")
    for heading in ("split", "test videos", "SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted"):
        table.add_column(heading, justify="right")
    for index, split in enumerate(result.splits):
        table.add_row(str(index), *_cells(split.test))
    table.add_section()
    table.add_row("median", *_cells(result.median()), style="bold")
    return table


def _cells(metrics: Metrics) -> tuple[str, ...]:
    values = (metrics.srcc, metrics.krcc, metrics.plcc, metrics.plcc_fitted, metrics.rmse_fitted)
    return (str(metrics.n), *("nan" if math.isnan(value) else f"{value:.3f}" for value in values))


def _labelled_with_features(manifest: Manifest, features: FeatureCache) -> list[VideoSample]:
    from diffvqa.stages.errors import TrainingDataError
    from diffvqa.stages.training import VideoSample

    samples = [
        VideoSample(row.video_id, row.score, row.group)
        for row in manifest.rows
        if row.score is not None and row.video_id in features
    ]
    if not samples:
        raise TrainingDataError(
            f"No video of '{manifest.name}' has both a score and features.",
            "Prepare the data set with labels, and extract it.",
        )
    return samples


def command(
    name: Annotated[str, typer.Argument(help="A data set with features.", show_default=False)],
    cache: Annotated[
        Path | None, typer.Option("--cache", help="The features (default: runs/NAME/features).", show_default=False)
    ] = None,
    splits: Annotated[
        int | None, typer.Option("--splits", help="Random 80/20 splits (default: 10).", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training part (default: 10).", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of splits, weights and batches (default: 0).", show_default=False)
    ] = None,
    device: options.Device = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Train the regressor on a data set's features, over all splits."""
    chosen = {
        "train.splits": splits,
        "train.epochs": epochs,
        "train.seed": seed,
        "runtime.device": device,
        "runtime.runs": runs,
    }
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    summary = train(name, settings, cache=cache)
    from diffvqa.pipeline.console import in_words, output_console

    output_console().print(metrics_table(summary.result, summary.label))
    typer.echo(f"{name}: {summary.videos} videos, {len(summary.result.splits)} splits, {in_words(summary.seconds)}")
    typer.echo(f"model: {summary.model}")
    typer.echo(f"next: diffvqa score PATH… --model {name}")
