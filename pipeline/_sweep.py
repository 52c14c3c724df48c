"""``diffvqa sweep``: search the training recipe for better settings, on the validation parts alone."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options
from diffvqa.pipeline._tables import PlainTable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._search_space import SearchSpace

logger = logging.getLogger(__name__)

STUDY_FILE = "study.db"
BEST_FILE = "best.toml"
TRIALS_FILE = "trials.csv"
_SHOWN = 10


@dataclass(frozen=True)
class TriedRecipe:
    """One trial.

    Attributes:
        number: From 0.
        state: ``complete``, ``pruned`` or ``failed``.
        value: Mean over the splits of (SRCC + PLCC) / 2 of the best epoch on the validation part; for a pruned trial,
            over the splits that it got to; None when it failed before the first.
        settings: What it tried.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep found.

    Attributes:
        folder: Where study, table and best recipe lie.
        best: Settings file of the best recipe, for ``--config``.
        trials: All of them, best first.
        resumed: How many were there before.
        seconds: How long it took.
    """

    folder: Path
    best: Path
    trials: tuple[TriedRecipe, ...]
    resumed: int
    seconds: float

    def table(self) -> PlainTable:
        """Return the best trials."""
        keys = tuple(self.trials[0].settings) if self.trials else ()
        rows = tuple(
            (
                str(trial.number),
                trial.state,
                "" if trial.value is None else f"{trial.value:.4f}",
                *(
                    f"{trial.settings[key]:.4g}" if isinstance(trial.settings[key], float) else str(trial.settings[key])
                    for key in keys
                ),
            )
            for trial in self.trials[:_SHOWN]
        )
        return PlainTable((("trial", "state", "validation", *keys),), rows)


def sweep(
    name: str,
    settings: Settings,
    *,
    trials: int = 30,
    splits: int = 3,
    space: SearchSpace | None = None,
    cache: str | None = None,
) -> SweepSummary:
    """Try recipes on a data set's features until there are ``trials`` of them; an interrupted search goes on.

    A trial trains on the training part of each split and is judged on its validation part. Test parts are not read. A
    trial that does worse than half of the others after some splits is given up. On a cluster several trials are under
    way at once, one split of each at a time.

    Args:
        name: The data set's.
        settings: The recipe to start from, and the runtime.
        trials: Number of recipes in all, those of an interrupted search included.
        splits: Splits that each is tried on.
        space: What to try; the default of :mod:`~diffvqa.pipeline._search_space` when None.
        cache: The features; ``runs/<name>/features`` when None.

    Raises:
        ConfigError: Optuna is not installed.
        DatasetError: The data set is not prepared.
        CacheError: There are no features, or they are damaged.
        TrainingDataError: There are too few contents, or no usable scores.
        OutputError: The folder cannot be written.
        ClusterError: The Ray cluster cannot be used.
    """
    import tomli_w

    from diffvqa.cache._atomic import atomic_write_text
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._engines.choice import choose_engine
    from diffvqa.pipeline._errors import ConfigError
    from diffvqa.pipeline._labelled import load_labelled
    from diffvqa.pipeline._recipe_search import RecipeSearch, SearchMaterial
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.pipeline._search_space import DEFAULT_SPACE

    try:
        import optuna
    except ImportError as error:
        raise ConfigError("The search needs Optuna.", "Install it with `pip install 'diffvqa[sweep]'`.") from error
    begun = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = DatasetRun(settings.runtime.runs, name).require_prepared().folder / "sweep"
    labelled = load_labelled([name], settings.runtime.runs, cache=cache)
    space = space or DEFAULT_SPACE
    chosen = labelled.splits(settings.train.model_copy(update={"splits": splits}))[:splits]
    identity = labelled.identity(settings.train, chosen, space=repr(sorted(space.items())))
    study = _open_study(folder, identity, settings.train.seed)
    before = len(_finished(study))
    if before:
        logger.info("%d trial(s) were there already", before)
    material = SearchMaterial(labelled, chosen, settings.runtime)
    with choose_engine(settings) as engine, progress(f"sweep {name}", trials) as report:
        report.go_on(before, trials)
        search = RecipeSearch(study, engine, material, space, settings.train)
        for _ in search.run(max(0, trials - before)):
            report.advance()
    ranked = _ranked(study)
    if not any(trial.state == "complete" for trial in ranked):
        raise ConfigError(f"No trial of '{name}' was completed.", "Ask for more with --trials.")
    summary = SweepSummary(folder, folder / BEST_FILE, ranked, before, time.monotonic() - begun)
    best = {**settings.train.model_dump(), **study.best_trial.params}
    atomic_write_text(summary.best, tomli_w.dumps({"train": best}))
    atomic_write_text(folder / TRIALS_FILE, _trials_csv(ranked))
    return summary


def _open_study(folder: Path, identity: str, seed: int) -> Study:
    """Open the study of exactly this search; the trials of another lie in the same file and are left alone."""
    import optuna

    from diffvqa.cache._atomic import reporting_output_errors

    with reporting_output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{(folder / STUDY_FILE).absolute()}"
    study = optuna.create_study(
        storage=url,
        study_name=identity[:16],
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # its process was killed
    # A seed of its own for each part of an interrupted search, which would else try the same recipes again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _finished(study: Study) -> list[FrozenTrial]:
    import optuna

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def _ranked(study: Study) -> tuple[TriedRecipe, ...]:
    """Complete trials before pruned ones, and the better before the worse."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    tried = [
        TriedRecipe(trial.number, names.get(trial.state.name, trial.state.name.lower()), _value_of(trial), trial.params)
        for trial in study.get_trials(deepcopy=False)
    ]
    return tuple(
        sorted(tried, key=lambda each: (each.state != "complete", -(each.value if each.value is not None else -2)))
    )


def _value_of(trial: FrozenTrial) -> float | None:
    if trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _trials_csv(trials: Sequence[TriedRecipe]) -> str:
    buffer = io.StringIO()
    keys = tuple(trials[0].settings)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("trial", "state", "validation", *keys))
    for trial in trials:
        value = "" if trial.value is None else repr(trial.value)
        writer.writerow((trial.number, trial.state, value, *(trial.settings.get(key, "") for key in keys)))
    return buffer.getvalue()


def command(
    name: Annotated[str, typer.Argument(help="A data set with features.", show_default=False)],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Recipes to try in all; a search goes on.")] = 30,
    splits: Annotated[int, typer.Option("--splits", min=1, help="Splits that each is tried on.")] = 3,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUES",
            help="What to search: KEY=LOW:HIGH[:log] or KEY=A,B,C; may be repeated (default: eleven settings).",
            show_default=False,
        ),
    ] = None,
    cache: options.Cache = None,
    device: options.Device = None,
    engine: options.Engine = None,
    address: options.Address = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Search the training recipe for better settings, on validation parts alone."""
    chosen = options.place(device, engine, address, runs)
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    from diffvqa.pipeline._console import in_words, tell
    from diffvqa.pipeline._search_space import parse_space

    summary = sweep(name, settings, trials=trials, splits=splits, space=parse_space(search or ()), cache=cache)
    tell(summary.table().to_text().rstrip("\n"))
    tell(f"{name}: {len(summary.trials)} trials, {summary.resumed} of them before, {in_words(summary.seconds)}")
    tell(f"best recipe: {summary.best}")
    tell(f"next: diffvqa train {name} --config {summary.best}")
