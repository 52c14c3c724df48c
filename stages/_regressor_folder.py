"""Trained regressors as a folder: weights, recipe, splits, metrics, predictions and curves, replaced as a whole."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffvqa.cache._atomic import atomic_folder, reporting_output_errors
from diffvqa.cache._errors import OutputError
from diffvqa.stages._calibration import Calibration
from diffvqa.stages._errors import RegressorFolderError
from diffvqa.stages._json_values import without_nan
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._prediction import CalibratedRegressor
from diffvqa.stages._regressor import Regressor
from diffvqa.stages._software import installed_versions
from diffvqa.stages._splits import Split
from diffvqa.stages._splits_file import write_splits
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import BranchShape

if TYPE_CHECKING:  # a model is read without what trained it: accelerate and scipy take a second to import
    from diffvqa.stages._training import CrossValidation, TrainedSplit

REGRESSOR_FORMAT = 6
"""Of a trained model; it is raised whenever regressors of the same recipe are built in another way."""

MODEL_FILE = "model.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
CURVES_FILE = "curves.csv"
CURVES_FOLDER = "tensorboard"
SPLITS_FILE = "splits.csv"
# The setting that came with each format; in what was written before, it is off. With format 4 came the networks,
# with format 5 their deviations, which were compared together with their means before.
_SINCE = {"texture": 2, "kernel": 3, "flat_texture": 6}
_SOFTWARE = ("diffvqa", "torch", "accelerate", "numba", "numpy", "scipy")
_TRAIN_AGAIN = "Run 'diffvqa train' again."


@dataclass(frozen=True)
class LoadedRegressors:
    """A trained model, read back.

    Attributes:
        regressors: One per split, in evaluation mode, on the CPU.
        calibrations: One per regressor: by data set, the line to its label scale.
        recipe: They were trained with.
        extract: What was given as ``extract`` on saving.
        labels: What was given as ``labels`` on saving: by data set, what its scores are.
    """

    regressors: tuple[Regressor, ...]
    calibrations: tuple[dict[str, Calibration], ...]
    recipe: TrainRecipe
    extract: dict[str, Any]
    labels: dict[str, dict[str, str]]

    def calibrated(self, dataset: str | None = None) -> tuple[CalibratedRegressor, ...]:
        """Return the regressors on the label scale of a data set they were trained on, the first when None.

        Raises:
            RegressorFolderError: They were not trained on it.
        """
        name = next(iter(self.labels)) if dataset is None else dataset
        if name not in self.labels:
            known = ", ".join(self.labels)
            raise RegressorFolderError(f"The model has no scale '{name}'.", f"It was trained on: {known}.")
        return tuple(
            CalibratedRegressor(regressor, lines[name])
            for regressor, lines in zip(self.regressors, self.calibrations, strict=True)
        )


def save_regressors(
    folder: Path,
    result: CrossValidation,
    *,
    train_recipe: TrainRecipe,
    extract: Mapping[str, Any],
    labels: Mapping[str, Mapping[str, str]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a trained model; a former one in the same place is replaced only when the new one is complete.

    Args:
        folder: Where to.
        result: Of the training.
        train_recipe: It was trained with.
        extract: How its features were made, as JSON; given back unchanged on loading.
        labels: By data set, in the order of ``result.datasets``, what its scores are; given back unchanged on loading.
        notes: Further text files, name to content.

    Raises:
        OutputError: The folder cannot be written, or something other than a trained model lies there.
    """
    if folder.exists() and not (folder / MODEL_FILE).is_file() and not (folder.is_dir() and _is_empty(folder)):
        raise OutputError(f"{folder} is there already and holds no trained model.", "Choose another folder.")
    with atomic_folder(folder) as unfinished, reporting_output_errors(folder):
        _write(unfinished, result, train_recipe, extract, labels)
        for name, text in (notes or {}).items():
            (unfinished / name).write_text(text, encoding="utf-8")


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
        if stored["format"] > REGRESSOR_FORMAT:
            raise RegressorFolderError(f"{path} was written by a newer version of diffvqa.", "Upgrade diffvqa.")
        unknown_then = {name: False for name, first in _SINCE.items() if stored["format"] < first}
        recipe = TrainRecipe.model_validate(stored["train"] | unknown_then)
        resize, crop = (_shape_from(stored["shapes"][view]) for view in ("resize", "crop"))
        regressors = []
        for split in stored["splits"]:
            regressor = Regressor(recipe, resize, crop, _networks_from(stored.get("networks", ())))
            regressor.load_state_dict(load_file(folder / split["weights"]))
            regressors.append(regressor.eval())
        lines = [
            {name: Calibration(**line) for name, line in split["calibrations"].items()} for split in stored["splits"]
        ]
        return LoadedRegressors(tuple(regressors), tuple(lines), recipe, stored["extract"], stored["labels"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise RegressorFolderError(f"{folder} is damaged: {first_line}.", _TRAIN_AGAIN) from error


def hash_regressors(folder: Path) -> str:
    """Return the SHA-256 (hex) of a trained model: of its description and of all its weights.

    Raises:
        RegressorFolderError: They cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in (folder / MODEL_FILE, *sorted(folder.glob("*.safetensors"))):
            digest.update(f"{path.name}\n".encode())
            digest.update(path.read_bytes())
    except OSError as error:
        raise RegressorFolderError(f"{folder} cannot be read: {error.strerror}.", _TRAIN_AGAIN) from error
    return digest.hexdigest()


def read_test_predictions(folder: Path, dataset: str) -> list[dict[str, tuple[float, float]]]:
    """Return, for each split, (true, predicted) of the videos of a data set that the split tested on, by id.

    Raises:
        RegressorFolderError: They are not there or damaged.
    """
    try:
        splits: dict[int, dict[str, tuple[float, float]]] = {}
        with (folder / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["dataset"] == dataset:
                    pair = float(row["true"]), float(row["predicted"])
                    splits.setdefault(int(row["split"]), {})[row["video_id"]] = pair
        return list(splits.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegressorFolderError(f"{folder / PREDICTIONS_FILE} is damaged: {error}.", _TRAIN_AGAIN) from error


def _write(
    folder: Path,
    result: CrossValidation,
    recipe: TrainRecipe,
    extract: Mapping[str, Any],
    labels: Mapping[str, Mapping[str, str]],
) -> None:
    for trained in result.splits:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in trained.regressor.state_dict().items()},
            folder / _weights_file(trained.split),
        )
        _write_tensorboard(folder / CURVES_FOLDER / _name_of(trained.split), trained)
    first = result.splits[0].regressor
    model = {
        "format": REGRESSOR_FORMAT,
        "train": recipe.model_dump(),
        "shapes": {"resize": asdict(first.resize_shape), "crop": asdict(first.crop_shape)},
        "networks": [astuple(network) for network in first.networks],
        "extract": dict(extract),
        "labels": {name: dict(labels[name]) for name in result.datasets},
        "splits": [
            {
                "name": _name_of(trained.split),
                "weights": _weights_file(trained.split),
                "best_epoch": trained.fitted.best_epoch,
                "calibrations": {name: asdict(line) for name, line in trained.calibrations.items()},
            }
            for trained in result.splits
        ],
        "software": installed_versions(_SOFTWARE),
    }
    metrics = {
        name: {
            "label": dict(labels[name]),
            "median": without_nan(asdict(result.median(name))),
            "splits": [
                {
                    "test": without_nan(asdict(trained.test[name])),
                    "validation": without_nan(asdict(trained.validation[name])),
                }
                for trained in result.splits
            ],
        }
        for name in result.datasets
    }
    for name, content in ((MODEL_FILE, model), (METRICS_FILE, metrics)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_splits(folder / SPLITS_FILE, [trained.split for trained in result.splits])
    _write_csv(
        folder / PREDICTIONS_FILE,
        ("split", "dataset", "video_id", "true", "predicted"),
        (
            (trained.split.index, dataset, video_id, repr(trained.test_true[video_id]), repr(predicted))
            for trained in result.splits
            for video_id, predicted in trained.test_predicted.items()
            for dataset in (trained.test_datasets[video_id],)
        ),
    )
    _write_csv(
        folder / CURVES_FILE,
        ("split", "epoch", "learning_rate", "train_loss", "validation_srcc", "validation_plcc"),
        (
            (trained.split.index, *asdict(record).values())
            for trained in result.splits
            for record in trained.fitted.curve
        ),
    )


def _write_tensorboard(folder: Path, trained: TrainedSplit) -> None:
    """Write a split's training curve and test figures for TensorBoard."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for record in trained.fitted.curve:
            for name, value in asdict(record).items():
                if name != "epoch" and math.isfinite(value):
                    writer.add_scalar(name, value, record.epoch)
        for dataset, metrics in trained.test.items():
            for name, value in asdict(metrics).items():
                if isinstance(value, float) and math.isfinite(value):
                    writer.add_scalar(f"test/{dataset}/{name}", value, trained.fitted.best_epoch)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _name_of(split: Split) -> str:
    return split.name or f"split-{split.index}"


def _weights_file(split: Split) -> str:
    return f"split-{split.index:02d}.safetensors"


def _networks_from(stored: Sequence[Any]) -> tuple[NetworkMaps, ...]:
    """Return what each network has; in format 4 that was a number of channels, all compared together."""
    return tuple(NetworkMaps(each, 0) if isinstance(each, int) else NetworkMaps(*each) for each in stored)


def _shape_from(stored: Mapping[str, Any]) -> BranchShape:
    latent = None if stored["latent"] is None else tuple(stored["latent"])
    return BranchShape(latent, tuple(stored["multiscale"]), stored["frame_size"])
