"""``diffvqa evaluate``: a trained model on other data sets, and a grid of models by data sets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffvqa.pipeline import _options as options
from diffvqa.pipeline._tables import PlainTable

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Runtime, Settings
    from diffvqa.pipeline._engines.interface import CallPlace
    from diffvqa.pipeline._labelled import LabelledSet
    from diffvqa.stages._metrics import Metrics
    from diffvqa.stages._prediction import CalibratedRegressor
    from diffvqa.stages._regressor_folder import LoadedRegressors

_METHOD = "DiffVQA"
Protocol = Literal["cross-data-set", "held-out"]


@dataclass(frozen=True)
class PredictedVideo:
    """One prediction.

    Attributes:
        video_id: In the data set that was evaluated on.
        split: The split whose regressor made it, for held-out predictions; -1 for the mean over the regressors.
        true: The label.
        predicted: On the label scale of the data set, where the model was trained on it; else on that of the first
            data set it was trained on.
    """

    video_id: str
    split: int
    true: float
    predicted: float


@dataclass(frozen=True)
class Evaluation:
    """How one model does on one data set.

    Attributes:
        model: As it was named.
        trained_on: The data sets it was trained on.
        on: The data set.
        backbone: The diffusion model that made its features.
        protocol: ``cross-data-set``: every video, the mean over the model's regressors. ``held-out``, for a data set
            that it was trained on: each split's test part with that split's regressor, the median over the splits.
        metrics: Of the predictions.
        predictions: One per video, or per video and split.
    """

    model: str
    trained_on: tuple[str, ...]
    on: str
    backbone: str
    protocol: Protocol
    metrics: Metrics
    predictions: tuple[PredictedVideo, ...]


def evaluate(models: Sequence[str], on: Sequence[str], settings: Settings) -> tuple[Evaluation, ...]:
    """Evaluate every model on every data set.

    Args:
        models: Data sets whose trained model to use, or model folders.
        on: Prepared and extracted data sets with labels.
        settings: The runtime.

    Raises:
        ConfigError: There is no such model.
        DatasetError: A data set is not prepared.
        FingerprintMismatchError: A data set's features are not those that a model was trained on.
        RegressorFolderError: A model is damaged.
        TrainingDataError: No video of a data set has both a score and features.
        ClusterError: The Ray cluster cannot be used.
    """
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._engines.choice import choose_engine
    from diffvqa.pipeline._engines.interface import as_done
    from diffvqa.pipeline._labelled import load_labelled

    sets = [load_labelled([name], settings.runtime.runs).sets[0] for name in on]
    cells = [_Cell.of(model, labelled, settings) for model in models for labelled in sets]
    evaluations = {cell: _held_out(cell) for cell in cells if cell.is_held_out}
    others = [cell for cell in cells if not cell.is_held_out]
    with choose_engine(settings) as engine, progress("evaluate", len(cells)) as report:
        report.set(len(evaluations), len(cells))
        calls = (_PredictCall(cell.regressors(), cell.labelled, settings.runtime) for cell in others)
        for number, predicted in as_done(engine, _mean_predictions, calls):
            evaluations[others[number]] = _cross_data_set(others[number], predicted)
            report.advance()
    return tuple(evaluations[cell] for cell in cells)


def grid_table(evaluations: Sequence[Evaluation]) -> PlainTable:
    """Return the results in the layout of the field's cross-data-set tables: training sets over test sets over figures.

    Args:
        evaluations: At least one; a row for each backbone, a pair of columns for each training and test set.
    """
    columns = list(dict.fromkeys(("+".join(each.trained_on), each.on) for each in evaluations))
    cells = {(each.backbone, "+".join(each.trained_on), each.on): each for each in evaluations}
    marked = {(trained, on): _marked(cells, trained, on) for trained, on in columns}
    headings = (
        ("training set", *(trained for trained, _ in columns for _ in range(2))),
        ("test set", *(marked[column] for column in columns for _ in range(2))),
        ("", *(figure for _ in columns for figure in ("SRCC", "PLCC"))),
    )
    rows = []
    for backbone in dict.fromkeys(each.backbone for each in evaluations):
        row = [f"{_METHOD} ({backbone})"]
        for trained, on in columns:
            each = cells.get((backbone, trained, on))
            row += ["", ""] if each is None else [f"{each.metrics.srcc:.3f}", f"{each.metrics.plcc_fitted:.3f}"]
        rows.append(tuple(row))
    return PlainTable(headings, tuple(rows))


def evaluations_json(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Return one object per model and data set: what was evaluated, then the keys of ``diffvqa metrics``."""
    from diffvqa.pipeline._metrics import metrics_json

    return [
        {
            "model": each.model,
            "trained_on": list(each.trained_on),
            "on": each.on,
            "backbone": each.backbone,
            "protocol": each.protocol,
            **metrics_json(each.metrics),
        }
        for each in evaluations
    ]


def predictions_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return every prediction as CSV, with ids."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("model", "on", "split", "video_id", "true", "predicted"))
    for each in evaluations:
        for row in each.predictions:
            split = "" if row.split < 0 else row.split
            writer.writerow((each.model, each.on, split, row.video_id, repr(row.true), repr(row.predicted)))
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class _Cell:
    """A model and a data set to evaluate it on."""

    model: str
    folder: Path
    loaded: LoadedRegressors
    labelled: LabelledSet

    @classmethod
    def of(cls, model: str, labelled: LabelledSet, settings: Settings) -> _Cell:
        """Load the model, and make sure that it was trained on such features."""
        from diffvqa.cache._fingerprint import Fingerprint
        from diffvqa.pipeline._runs import locate_trained_model
        from diffvqa.stages._regressor_folder import load_regressors

        folder = locate_trained_model(model, settings.runtime.runs)
        loaded = load_regressors(folder)
        settings_file = folder / "settings.toml"
        ways_out = f"Extract '{labelled.name}' with the recipe in {settings_file}, or train on these features."
        features = labelled.features
        Fingerprint(loaded.extract["fingerprint"]).require_equal(
            Fingerprint(features.header.fingerprint), features.url, ways_out
        )
        return cls(model, folder, loaded, labelled)

    @property
    def is_held_out(self) -> bool:
        """Whether the model was trained on the data set."""
        return self.labelled.name in self.loaded.labels

    def regressors(self) -> tuple[CalibratedRegressor, ...]:
        """Return them on the scale of the first data set that the model was trained on."""
        return self.loaded.calibrated()

    def evaluation(self, protocol: Protocol, metrics: Metrics, predictions: Iterable[PredictedVideo]) -> Evaluation:
        """Return what came of it."""
        backbone = str(self.loaded.extract["recipe"]["model"])
        trained_on = tuple(self.loaded.labels)
        return Evaluation(self.model, trained_on, self.labelled.name, backbone, protocol, metrics, tuple(predictions))


@dataclass(frozen=True)
class _PredictCall:
    """Regressors and a data set to predict, in this process or elsewhere."""

    regressors: tuple[CalibratedRegressor, ...]
    labelled: LabelledSet
    runtime: Runtime


def _mean_predictions(call: _PredictCall, place: CallPlace) -> dict[str, float]:
    """Return the mean over the regressors of their scores, on their label scale, by video id."""
    from diffvqa.pipeline._backbone import choose_device, use_threads
    from diffvqa.pipeline._stage_two import feature_memory
    from diffvqa.stages._prediction import check_shapes, predict_raw
    from diffvqa.stages._video_store import VideoStore

    runtime = place.applied_to(call.runtime)
    use_threads(runtime)
    device = choose_device(runtime.device)
    ids = [sample.video_id for sample in call.labelled.samples]
    videos = VideoStore(call.labelled.features, ids, memory_limit=feature_memory(runtime))
    means = dict.fromkeys(ids, 0.0)
    for each in call.regressors:
        regressor = each.regressor.to(device)
        check_shapes(regressor, videos[ids[0]])
        for video_id, raw in predict_raw(regressor, videos, ids).items():
            means[video_id] += each.calibration(raw) / len(call.regressors)
    return means


def _cross_data_set(cell: _Cell, predicted: Mapping[str, float]) -> Evaluation:
    from diffvqa.stages._metrics import correlation_metrics

    true = {sample.video_id: sample.score for sample in cell.labelled.samples}
    metrics = correlation_metrics(list(true.values()), [predicted[video_id] for video_id in true])
    predictions = (PredictedVideo(video_id, -1, true[video_id], predicted[video_id]) for video_id in true)
    return cell.evaluation("cross-data-set", metrics, predictions)


def _held_out(cell: _Cell) -> Evaluation:
    from diffvqa.stages._metrics import correlation_metrics, median_metrics
    from diffvqa.stages._regressor_folder import read_test_predictions

    name = cell.labelled.name
    prefix = f"{name}/" if len(cell.loaded.labels) > 1 else ""
    splits = read_test_predictions(cell.folder, name)
    metrics = median_metrics([correlation_metrics(*zip(*split.values(), strict=True)) for split in splits])
    predictions = (
        PredictedVideo(video_id.removeprefix(prefix), number, true, predicted)
        for number, split in enumerate(splits)
        for video_id, (true, predicted) in split.items()
    )
    return cell.evaluation("held-out", metrics, predictions)


def _marked(cells: dict[tuple[str, str, str], Evaluation], trained: str, on: str) -> str:
    """Return the heading of a test set; an asterisk says that the figures are of held-out parts of the training set."""
    held_out = any(
        each.protocol == "held-out"
        for (_, its_trained, its_on), each in cells.items()
        if (its_trained, its_on) == (trained, on)
    )
    return f"{on} *" if held_out else on


def command(
    models: Annotated[
        list[str], typer.Option("--model", help="Data set whose model to evaluate, or a model folder; may be repeated.")
    ],
    on: Annotated[list[str], typer.Option("--on", help="Data set to evaluate on; may be repeated.")],
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file; - for standard output.")
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option("--table", help="Write the table to a .txt, .csv, .md or .tex file; may be repeated."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write every prediction to this CSV file.", dir_okay=False)
    ] = None,
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
    """Evaluate trained models on data sets: cross-data-set tests, and a grid of them."""
    chosen = options.place(device, engine, address, runs)
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    from diffvqa.cache._atomic import atomic_write_text
    from diffvqa.pipeline._console import tell
    from diffvqa.pipeline._train import metric_cells

    evaluations = evaluate(models, on, settings)
    grid = grid_table(evaluations)
    for path in table or ():
        grid.write(path)
    if predictions is not None:
        atomic_write_text(predictions, predictions_csv(evaluations))
    figures = json.dumps(evaluations_json(evaluations), indent=2, allow_nan=False) + "\n"
    if as_json == Path("-"):
        typer.echo(figures, nl=False)
        return
    if as_json is not None:
        atomic_write_text(as_json, figures)
    headings = ("model", "on", "protocol", "videos", "SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted")
    rows = tuple((each.model, each.on, each.protocol, *metric_cells(each.metrics)) for each in evaluations)
    tell(PlainTable((headings,), rows).to_text(), grid.to_text().rstrip("\n"))
    if any(each.protocol == "held-out" for each in evaluations):
        tell("* a data set of the model's own: median over the splits, each on its held-out part")
    for path in (*(table or ()), *filter(None, (predictions, as_json))):
        tell(f"written: {path}")
