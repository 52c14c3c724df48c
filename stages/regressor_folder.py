"""Trained regressors as a folder: weights, recipe, splits, metrics, predictions and curves, replaced as a whole."""

from __future__ import annotations

import csv
import json
import math
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffvqa.cache.atomic import reporting_output_errors
from diffvqa.cache.errors import OutputError
from diffvqa.stages.errors import RegressorFolderError
from diffvqa.stages.metrics import Metrics
from diffvqa.stages.regressor import BranchShape, Regressor
from diffvqa.stages.train_recipe import TrainRecipe
from diffvqa.stages.training import CrossValidation

MODEL_FILE = "model.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
CURVES_FILE = "curves.csv"
_FORMAT = 1
_SOFTWARE = ("diffvqa", "torch", "numpy", "scipy")
_TRAIN_AGAIN = "Run 'diffvqa train' again."


@dataclass(frozen=True)
class LoadedRegressors:
    """A trained model, read back.

    Attributes:
        regressors: One per split, in evaluation mode, on the CPU.
        recipe: They were trained with.
        extract: What was given as ``extract`` on saving.
        label: What was given as ``label`` on saving.
    """

    regressors: tuple[Regressor, ...]
    recipe: TrainRecipe
    extract: dict[str, Any]
    label: dict[str, str]


def save_regressors(
    folder: Path,
    result: CrossValidation,
    *,
    train_recipe: TrainRecipe,
    extract: Mapping[str, Any],
    label: Mapping[str, str],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a trained model; a former one in the same place is replaced only when the new one is complete.

    Args:
        folder: Where to.
        result: Of the training.
        train_recipe: It was trained with.
        extract: How its features were made, as JSON; given back unchanged on loading.
        label: What the scores are; given back unchanged on loading.
        notes: Further text files, name to content.

    Raises:
        OutputError: The folder cannot be written, or something other than a trained model lies there.
    """
    if folder.exists() and not (folder / MODEL_FILE).is_file() and not (folder.is_dir() and _is_empty(folder)):
        raise OutputError(f"{folder} is there already and holds no trained model.", "Choose another folder.")
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        with reporting_output_errors(folder):
            unfinished.mkdir(parents=True)
            _write(unfinished, result, train_recipe, extract, label)
            for name, text in (notes or {}).items():
                (unfinished / name).write_text(text, encoding="utf-8")
            _replace(folder, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_regressors(folder: Path) -> LoadedRegressors:
    """Read a trained model.

    Raises:
        RegressorFolderError: There is none, it is damaged, or newer software wrote it.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise RegressorFolderError(f"{folder} holds no trained model: {MODEL_FILE} is missing.", _TRAIN_AGAIN)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] > _FORMAT:
            raise RegressorFolderError(f"{path} was written by a newer version of diffvqa.", "Upgrade diffvqa.")
        recipe = TrainRecipe.model_validate(stored["train"])
        shapes = [_shape_from(stored["shapes"][view]) for view in ("resize", "crop")]
        regressors = []
        for index in range(len(stored["splits"])):
            regressor = Regressor(recipe, *shapes)
            regressor.load_state_dict(load_file(folder / _weights_file(index)))
            regressors.append(regressor.eval())
        return LoadedRegressors(tuple(regressors), recipe, stored["extract"], stored["label"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise RegressorFolderError(f"{folder} is damaged: {first_line}.", _TRAIN_AGAIN) from error


def _write(
    folder: Path, result: CrossValidation, recipe: TrainRecipe, extract: Mapping[str, Any], label: Mapping[str, str]
) -> None:
    for index, trained in enumerate(result.splits):
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in trained.regressor.state_dict().items()},
            folder / _weights_file(index),
        )
    first = result.splits[0].regressor
    model = {
        "format": _FORMAT,
        "train": recipe.model_dump(),
        "shapes": {"resize": asdict(first.resize_shape), "crop": asdict(first.crop_shape)},
        "extract": dict(extract),
        "label": dict(label),
        "splits": [asdict(trained.split) for trained in result.splits],
        "software": {name: version(name) for name in _SOFTWARE},
    }
    metrics = {
        "label": dict(label),
        "median": _finite(result.median()),
        "splits": [
            {
                "best_epoch": trained.best_epoch,
                "test": _finite(trained.test),
                "validation": _finite(trained.validation),
            }
            for trained in result.splits
        ],
    }
    for name, content in ((MODEL_FILE, model), (METRICS_FILE, metrics)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_csv(
        folder / PREDICTIONS_FILE,
        ("split", "video_id", "true", "predicted"),
        (
            (index, video_id, repr(trained.test_true[video_id]), repr(predicted))
            for index, trained in enumerate(result.splits)
            for video_id, predicted in trained.test_predicted.items()
        ),
    )
    _write_csv(
        folder / CURVES_FILE,
        ("split", "epoch", "learning_rate", "train_loss", "validation_srcc", "validation_plcc"),
        ((index, *asdict(record).values()) for index, trained in enumerate(result.splits) for record in trained.curve),
    )


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _finite(metrics: Metrics) -> dict[str, float | int | str | None]:
    """Return the metrics as JSON, which knows no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(metrics).items()
    }


def _replace(folder: Path, finished: Path) -> None:
    """Put ``finished`` in the place of ``folder``; between the two renames the former model lies beside it."""
    former = folder.with_name(f"{finished.name}-former")
    if folder.exists():
        folder.rename(former)
    try:
        finished.rename(folder)
    except BaseException:
        if former.exists():
            former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _weights_file(index: int) -> str:
    return f"split-{index:02d}.safetensors"


def _shape_from(stored: Mapping[str, Any]) -> BranchShape:
    return BranchShape(tuple(stored["latent"]), tuple(stored["multiscale"]), stored["frame_size"])
