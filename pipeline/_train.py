"""``diffvqa train``: train the regressor on cached features, over all splits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from rich.table import Table

    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._labelled import LabelledSets
    from diffvqa.pipeline._manifest import Label
    from diffvqa.stages._metrics import Metrics
    from diffvqa.stages._splits import Split
    from diffvqa.stages._train_recipe import TrainRecipe
    from diffvqa.stages._training import CrossValidation


@dataclass(frozen=True)
class TrainSummary:
    """What was trained.

    Attributes:
        model: Folder of the trained regressors.
        labels: By data set, what the scores are.
        videos: Videos trained and tested on.
        unused: Labelled videos of the data sets that have no features.
        result: Metrics of every split.
        scan: Which implementation of the selective scan ran, and why; empty where none did.
        seconds: How long it took.
    """

    model: Path
    labels: dict[str, Label]
    videos: int
    unused: int
    result: CrossValidation
    scan: str
    seconds: float

    @property
    def waited(self) -> float:
        """Share of the training steps' time in which the next batch was not ready, in [0, 1]."""
        spent = sum(trained.fitted.seconds for trained in self.result.splits)
        return sum(trained.fitted.waited for trained in self.result.splits) / spent if spent else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON, with the medians over the splits by data set."""
        from diffvqa.pipeline._metrics import metrics_json

        return {
            "model": str(self.model),
            "videos": self.videos,
            "unused": self.unused,
            "splits": len(self.result.splits),
            "medians": {name: metrics_json(self.result.median(name)) for name in self.labels},
            "seconds": round(self.seconds, 3),
        }


def train(
    names: Sequence[str],
    settings: Settings,
    *,
    cache: str | None = None,
    splits_file: Path | None = None,
    random_splits: bool = False,
    pretrain: Sequence[str] = (),
) -> TrainSummary:
    """Train the regressor on the features of data sets and write ``runs/<name>/model``.

    An interrupted training goes on where it was, as long as recipe, features and labels are the same.

    Args:
        names: Of the data sets; those of several are joined with ``+``.
        settings: Recipe and runtime.
        cache: The features, for a single data set; ``runs/<name>/features`` when None.
        splits_file: Splits to use; official ones where there are any, else random ones, when None.
        random_splits: Use random ones even where a data set has official ones.
        pretrain: Data sets to pretrain on before each split is fine-tuned.

    Raises:
        DatasetError: A data set is not prepared.
        CacheError: There are no features, they are damaged, or the data sets have different ones.
        TrainingDataError: There are too few contents, or no usable scores.
        OutputError: The model folder cannot be written.
        ClusterError: The Ray cluster cannot be used.
    """
    from diffvqa.pipeline._config import SETTINGS_FILE
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._labelled import load_labelled
    from diffvqa.pipeline._regressor_training import TrainingWork, regressor_trainer
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.stages._regressor_folder import save_regressors
    from diffvqa.stages._training_journal import TrainingJournal

    begun = time.monotonic()
    recipe, run = settings.train, DatasetRun(settings.runtime.runs, "+".join(names))
    labelled = load_labelled(names, settings.runtime.runs, cache=cache)
    chosen = labelled.splits(recipe, file=splits_file, official=not random_splits)
    before = load_labelled(pretrain, settings.runtime.runs) if pretrain else None
    if before is not None:
        labelled.require_same_features(before)
    identity = labelled.identity(recipe, chosen, pretrained_on=before.identity(recipe, ()) if before else "")
    journal = TrainingJournal(run.folder / "training", identity)
    epochs = recipe.epochs * len(chosen) + (recipe.pretrain_epochs if before else 0)
    with regressor_trainer(settings) as trainer, progress(f"train {run.name}", epochs) as report:
        initial = None
        if before is not None:
            work = TrainingWork(before, recipe)
            initial = trainer.pretrain(work, _whole_split(before, recipe), journal, report.advance)
        trained = trainer.train(TrainingWork(labelled, recipe, initial), chosen, journal, report.advance)
    labels = {name: {"name": label.name, "note": label.note} for name, label in labelled.labels.items()}
    notes = {SETTINGS_FILE: settings.to_toml()}
    save_regressors(
        run.model, trained.result, train_recipe=recipe, extract=labelled.extract, labels=labels, notes=notes
    )
    journal.clear()
    return TrainSummary(
        model=run.model,
        labels=labelled.labels,
        videos=len(labelled.samples),
        unused=sum(each.unused for each in labelled.sets),
        result=trained.result,
        scan=trained.scan,
        seconds=time.monotonic() - begun,
    )


def metrics_table(result: CrossValidation, dataset: str, label: Label) -> Table:
    """Return the table of the test metrics of every split, and their medians.

    Args:
        result: Of the training.
        dataset: Whose test videos.
        label: What the scores are; stands in the title.
    """
    from rich.table import Table

    table = Table(title=f"{dataset}: held-out contents, against {label}", title_justify="left")
    for heading in ("split", "test videos", "SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted"):
        table.add_column(heading, justify="right")
    for trained in result.splits:
        table.add_row(trained.split.name, *metric_cells(trained.test[dataset]))
    table.add_section()
    table.add_row("median", *metric_cells(result.median(dataset)), style="bold")
    return table


def metric_cells(metrics: Metrics) -> tuple[str, ...]:
    """Return n, SRCC, KRCC, PLCC, PLCC fitted and RMSE fitted as text."""
    values = (metrics.srcc, metrics.krcc, metrics.plcc, metrics.plcc_fitted, metrics.rmse_fitted)
    return (str(metrics.n), *("nan" if math.isnan(value) else f"{value:.3f}" for value in values))


def _whole_split(before: LabelledSets, recipe: TrainRecipe) -> Split:
    """Return a split that trains on all videos but those that the epoch is chosen on."""
    from dataclasses import replace

    split = before.splits(recipe.model_copy(update={"splits": 1}), official=False)[0]
    return replace(split, train=tuple(sorted((*split.train, *split.test))), test=())


def command(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME…", help="Data sets with features; several are trained on at once.")
    ],
    cache: options.Cache = None,
    splits: Annotated[
        int | None, typer.Option("--splits", help="Random 80/20 splits (default: 10).", show_default=False)
    ] = None,
    splits_file: Annotated[
        Path | None,
        typer.Option("--splits-file", help="Use the splits of this file (splits.csv of a model).", show_default=False),
    ] = None,
    random_splits: Annotated[
        bool, typer.Option("--random-splits", help="Random splits even where a data set has official ones.")
    ] = False,
    pretrain: Annotated[
        list[str] | None,
        typer.Option("--pretrain", metavar="NAME", help="Pretrain on this data set first; may be repeated."),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Train once for each block switched off, and compare; keeps no model.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training part (default: 5).", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of splits, weights and batches (default: 0).", show_default=False)
    ] = None,
    device: options.Device = None,
    engine: options.Engine = None,
    address: options.Address = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Train the regressor on data sets' features, over all splits."""
    chosen = {
        "train.splits": splits,
        "train.epochs": epochs,
        "train.seed": seed,
        **options.place(device, engine, address, runs),
    }
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    if ablate:
        from diffvqa.pipeline import _ablation as ablation
        from diffvqa.pipeline._errors import ConfigError

        if pretrain:
            raise ConfigError("--ablate compares regressors that start alike.", "Leave out --pretrain.")
        ablation.show(
            ablation.ablate(names, settings, cache=cache, splits_file=splits_file, random_splits=random_splits)
        )
        return
    summary = train(
        names,
        settings,
        cache=cache,
        splits_file=splits_file,
        random_splits=random_splits,
        pretrain=pretrain or (),
    )
    from diffvqa.pipeline._console import in_words, show_json, tell

    if as_json:
        show_json(summary.as_json())
        return
    for name, label in summary.labels.items():
        tell(metrics_table(summary.result, name, label))
    joint = "+".join(names)
    tell(f"{joint}: {summary.videos} videos, {len(summary.result.splits)} splits, {in_words(summary.seconds)}")
    tell("; ".join(filter(None, (f"waited for data {summary.waited:.1%} of the steps' time", summary.scan))))
    tell(f"model: {summary.model}")
    tell(f"next: diffvqa score PATH… --model {joint}")
