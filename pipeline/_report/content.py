"""What a report tells: everything that the runs folder holds of one data set and the model trained on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffvqa.cache._errors import CacheMissingError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import VideoRow
from diffvqa.cache._streaming import in_disk_order
from diffvqa.pipeline._ablation import ABLATION_FILE
from diffvqa.pipeline._config import SETTINGS_FILE
from diffvqa.pipeline._errors import ConfigError
from diffvqa.pipeline._manifest import Manifest, read_manifest
from diffvqa.pipeline._runs import DatasetRun, locate_trained_model
from diffvqa.stages._regressor_folder import (
    CURVES_FILE,
    METRICS_FILE,
    MODEL_FILE,
    LoadedRegressors,
    load_regressors,
    read_test_predictions,
)

_EVALUATIONS = "evaluation*.json"


@dataclass(frozen=True)
class HeldOutVideo:
    """A video that was tested on, and how well it was predicted.

    Attributes:
        video_id: In its data set.
        group: Its content.
        true: Its label.
        predicted: The mean over the splits that tested on it, each by its own regressor.
        split: Index of the first of these splits.
        row: What the cache knows of it.
    """

    video_id: str
    group: str
    true: float
    predicted: float
    split: int
    row: VideoRow

    @property
    def residual(self) -> float:
        """Predicted minus true."""
        return self.predicted - self.true


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, as its folder describes it.

    Attributes:
        folder: Where it lies.
        dataset: The data set that is reported on.
        loaded: Its regressors.
        metrics: Of the data set: ``median`` and ``splits``, as in ``metrics.json``.
        splits: Names of its splits.
        best_epochs: Of each split, counted from 0.
        curves: The rows of ``curves.csv``, each a number by column.
        software: Versions it was trained with.
        held_out: Every video that was tested on.
    """

    folder: Path
    dataset: str
    loaded: LoadedRegressors
    metrics: dict[str, Any]
    splits: tuple[str, ...]
    best_epochs: tuple[int, ...]
    curves: tuple[dict[str, float], ...]
    software: dict[str, str]
    held_out: tuple[HeldOutVideo, ...]


@dataclass(frozen=True)
class ReportContent:
    """Everything a report is made from.

    Attributes:
        name: Of the data set.
        manifest: Its videos.
        features: Its cache; None where there is none yet.
        failures: The videos that could not be used.
        trained: The model; None where there is none yet.
        ablation: As ``train --ablate`` wrote it; None where it did not.
        evaluations: As ``evaluate --json`` wrote them.
        settings: Text of the settings that the data set, the features and the model were made with, by title.
    """

    name: str
    manifest: Manifest
    features: FeatureCache | None
    failures: tuple[VideoRow, ...]
    trained: TrainedModel | None
    ablation: dict[str, Any] | None
    evaluations: tuple[dict[str, Any], ...]
    settings: dict[str, str]


def gather(name: str, runs: Path, *, model: str | None = None, evaluations: Sequence[Path] = ()) -> ReportContent:
    """Collect what a report tells.

    Args:
        name: Of the data set.
        runs: Folder of all outputs.
        model: Data set whose model to tell of, or a model folder; the data set's own when None.
        evaluations: Files of ``evaluate --json``; every ``evaluation*.json`` in the data set's folder when empty.

    Raises:
        DatasetError: The data set is not prepared.
        ConfigError: The model was not trained on the data set, or a file holds no evaluation.
        CacheError: The features are damaged.
        RegressorFolderError: The model is damaged.
    """
    run = DatasetRun(runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    features = _open(run.features)
    folder = run.model if model is None else locate_trained_model(model, runs)
    has_model = (folder / MODEL_FILE).is_file() and features is not None
    trained = _read_model(folder, manifest, features) if has_model and features is not None else None
    ablation = run.folder / "ablation" / ABLATION_FILE
    settings = {"data set": run.folder / SETTINGS_FILE, "model": folder / SETTINGS_FILE}
    return ReportContent(
        name=name,
        manifest=manifest,
        features=features,
        failures=tuple(features.failures()) if features is not None else (),
        trained=trained,
        ablation=_read_json(ablation) if ablation.is_file() else None,
        evaluations=tuple(
            row for path in evaluations or sorted(run.folder.glob(_EVALUATIONS)) for row in _read_evaluation(path)
        ),
        settings={title: path.read_text(encoding="utf-8") for title, path in settings.items() if path.is_file()},
    )


def _open(location: Path) -> FeatureCache | None:
    try:
        return FeatureCache(location)
    except CacheMissingError:
        return None


def _read_model(folder: Path, manifest: Manifest, features: FeatureCache) -> TrainedModel:
    loaded = load_regressors(folder)
    if manifest.name not in loaded.labels:
        known = ", ".join(loaded.labels)
        raise ConfigError(
            f"The model {folder} was not trained on '{manifest.name}' but on {known}.",
            "See how it does with 'diffvqa evaluate --json', and report on a model of this data set.",
        )
    described = _read_json(folder / MODEL_FILE)
    with (folder / CURVES_FILE).open(encoding="utf-8", newline="") as file:
        curves = tuple({column: float(cell) for column, cell in row.items()} for row in csv.DictReader(file))
    prefix = f"{manifest.name}/" if len(loaded.labels) > 1 else ""
    return TrainedModel(
        folder=folder,
        dataset=manifest.name,
        loaded=loaded,
        metrics=_read_json(folder / METRICS_FILE)[manifest.name],
        splits=tuple(split["name"] for split in described["splits"]),
        best_epochs=tuple(split["best_epoch"] for split in described["splits"]),
        curves=curves,
        software=described["software"],
        held_out=_held_out(read_test_predictions(folder, manifest.name), prefix, manifest, features),
    )


def _held_out(
    splits: Sequence[dict[str, tuple[float, float]]], prefix: str, manifest: Manifest, features: FeatureCache
) -> tuple[HeldOutVideo, ...]:
    found: dict[str, list[tuple[int, float, float]]] = {}
    for number, split in enumerate(splits):
        for video_id, (true, predicted) in split.items():
            found.setdefault(video_id.removeprefix(prefix), []).append((number, true, predicted))
    groups = {row.video_id: row.group for row in manifest.rows}
    there = [video_id for video_id in found if video_id in features]
    return tuple(
        HeldOutVideo(
            video_id=video_id,
            group=groups.get(video_id, ""),
            true=found[video_id][0][1],
            predicted=sum(predicted for _, _, predicted in found[video_id]) / len(found[video_id]),
            split=found[video_id][0][0],
            row=features.row(video_id),
        )
        for video_id in in_disk_order(features, there)
    )


def _read_evaluation(path: Path) -> list[dict[str, Any]]:
    rows = _read_json(path)
    wanted = {"model", "trained_on", "on", "protocol", "srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted", "n"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and wanted <= row.keys() for row in rows):
        raise ConfigError(f"{path} holds no evaluation.", "Give a file that 'diffvqa evaluate --json FILE' wrote.")
    return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Make it again, or take it away.") from error
