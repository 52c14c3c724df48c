from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stage_two_material import RECIPE as SMALL
from stage_two_material import make_features, make_material
from tensorboardX.proto.event_pb2 import Event

from diffvqa.cache._errors import OutputError
from diffvqa.stages import _regressor_folder as regressor_folder
from diffvqa.stages._errors import RegressorFolderError
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._prediction import predict
from diffvqa.stages._regressor_folder import load_regressors, read_test_predictions, save_regressors
from diffvqa.stages._splits_file import read_splits
from diffvqa.stages._training import CrossValidation, train_all

RECIPE = SMALL.model_copy(update={"epochs": 1})
EXTRACT = {"recipe": {"model": "nano", "frames": 2}, "fingerprint": {"weights": "abc"}}
LABELS = {"": {"name": "MOS", "note": "1 to 5"}}


@pytest.fixture(scope="module")
def trained() -> CrossValidation:
    data = make_material(8, frames=2, prefix="v,")  # a comma in an id must not break the tables
    return train_all(data.features, data.samples, data.splits(RECIPE), RECIPE)


@pytest.fixture
def folder(tmp_path: Path, trained: CrossValidation) -> Path:
    path = tmp_path / "runs" / "model"
    save_regressors(path, trained, train_recipe=RECIPE, extract=EXTRACT, labels=LABELS)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_read_back_predicts_the_same(folder: Path, trained: CrossValidation) -> None:
    loaded = load_regressors(folder)
    assert (loaded.recipe, loaded.extract, loaded.labels) == (RECIPE, EXTRACT, LABELS)
    assert not any(regressor.training for regressor in loaded.regressors)
    features = make_features(77, 0.5)
    expected = predict([split.calibrated() for split in trained.splits], features)
    found = predict(loaded.calibrated(), features)
    assert (found.score, found.score_std) == (expected.score, expected.score_std)
    assert np.array_equal(found.frame_quality, expected.frame_quality)
    assert np.array_equal(found.frame_weight, expected.frame_weight)


def test_features_without_a_latent_train_are_stored_and_predict(tmp_path: Path) -> None:
    def without_latent(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in arrays.items() if not name.endswith("latent")}

    data = make_material(8, frames=2)
    features = {video_id: without_latent(arrays) for video_id, arrays in data.features.items()}
    splits = data.splits(RECIPE)[:1]
    trained = train_all(features, data.samples, splits, RECIPE)
    save_regressors(tmp_path / "model", trained, train_recipe=RECIPE, extract=EXTRACT, labels=LABELS)
    loaded = load_regressors(tmp_path / "model")
    assert loaded.regressors[0].crop_shape.latent is None
    asked = without_latent(make_features(77, 0.5))
    expected = predict([split.calibrated() for split in trained.splits], asked)
    assert predict(loaded.calibrated(), asked).score == expected.score
    with pytest.raises(RegressorFolderError, match="was trained on features of shapes"):
        predict(loaded.calibrated(), make_features(77, 0.5))


def test_which_maps_are_whose_is_kept(tmp_path: Path) -> None:
    data = make_material(8, frames=2)
    networks = (NetworkMaps(2, 0), NetworkMaps(1, 2))
    trained = train_all(data.features, data.samples, data.splits(RECIPE), RECIPE, networks=networks)
    save_regressors(tmp_path / "model", trained, train_recipe=RECIPE, extract=EXTRACT, labels=LABELS)
    features = make_features(77, 0.5)
    expected = predict([split.calibrated() for split in trained.splits], features)
    assert predict(load_regressors(tmp_path / "model").calibrated(), features).score == expected.score


@pytest.mark.parametrize(
    ("written_in", "unknown_then"), [(1, ("texture", "kernel")), (2, ("kernel",)), (3, ()), (4, ()), (5, ())]
)
def test_a_model_of_an_earlier_format_predicts_the_same(
    tmp_path: Path, written_in: int, unknown_then: tuple[str, ...]
) -> None:
    unknown_then = (*unknown_then, "flat_texture")
    without = RECIPE.model_copy(update=dict.fromkeys(unknown_then, False))
    data = make_material(8, frames=2)
    networks = {4: (NetworkMaps(2, 0), NetworkMaps(3, 0)), 5: (NetworkMaps(2, 0), NetworkMaps(1, 2))}.get(
        written_in, ()
    )
    trained = train_all(data.features, data.samples, data.splits(without), without, networks=networks)
    save_regressors(tmp_path / "model", trained, train_recipe=without, extract=EXTRACT, labels=LABELS)
    stored = json.loads((tmp_path / "model/model.json").read_text())
    for setting in unknown_then:
        del stored["train"][setting]
    if written_in < 4:
        del stored["networks"]
    elif written_in == 4:
        stored["networks"] = [2, 3]
    (tmp_path / "model/model.json").write_text(json.dumps(stored | {"format": written_in}))
    features = make_features(77, 0.5)
    expected = predict([split.calibrated() for split in trained.splits], features)
    assert predict(load_regressors(tmp_path / "model").calibrated(), features).score == expected.score


def test_the_tables_hold_every_prediction_and_epoch(folder: Path, trained: CrossValidation) -> None:
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["split"]), row["video_id"], float(row["true"]), float(row["predicted"])) for row in rows] == [
        (index, video_id, split.test_true[video_id], predicted)
        for index, split in enumerate(trained.splits)
        for video_id, predicted in split.test_predicted.items()
    ]
    with (folder / "curves.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in curve] == [split.fitted.curve[0].train_loss for split in trained.splits]


def test_metrics_and_splits_are_strict_json(folder: Path, trained: CrossValidation) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    assert stored[""]["splits"][1]["test"]["n"] == trained.splits[1].test[""].n
    model = json.loads((folder / "model.json").read_text(), parse_constant=refuse)
    assert [split["name"] for split in model["splits"]] == ["split-0", "split-1"]
    assert set(model["software"]) >= {"diffvqa", "torch", "numpy"}


def test_nothing_but_the_model_is_left_beside_it(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    suffixes = {path.suffix for path in folder.iterdir() if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".csv"}


def test_the_splits_can_be_given_to_another_training(folder: Path, trained: CrossValidation) -> None:
    assert read_splits(folder / "splits.csv").splits == tuple(one.split for one in trained.splits)


def test_test_predictions_are_read_back_by_split(folder: Path, trained: CrossValidation) -> None:
    found = read_test_predictions(folder, "")
    assert [set(split) for split in found] == [set(split.test_true) for split in trained.splits]
    for split, pairs in zip(trained.splits, found, strict=True):
        for video_id, (true, predicted) in pairs.items():
            assert (true, predicted) == (split.test_true[video_id], split.test_predicted[video_id])


def test_the_curves_are_there_for_tensorboard(folder: Path, trained: CrossValidation) -> None:
    for split in trained.splits:
        (file,) = (folder / "tensorboard" / split.split.name).glob("events.out.tfevents.*")
        found: dict[tuple[str, int], float] = {}
        for content in read_records(file):
            event = Event.FromString(content)
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        assert found["train_loss", 0] == pytest.approx(split.fitted.curve[0].train_loss, rel=1e-6)


def read_records(file: Path) -> Iterator[bytes]:
    """TensorFlow's record format: length, its checksum, content, its checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 16 + length


def test_a_scale_that_the_model_does_not_have_is_refused(folder: Path) -> None:
    with pytest.raises(RegressorFolderError, match="has no scale 'x'"):
        load_regressors(folder).calibrated("x")


@pytest.mark.parametrize("broken", ["_write_csv", "save_file"])
def test_an_interrupted_save_leaves_the_former_model(
    folder: Path, trained: CrossValidation, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)

    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(regressor_folder, broken, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_regressors(folder, trained, train_recipe=RECIPE, extract={}, labels=LABELS)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_save_that_cannot_be_moved_into_place_leaves_the_former_model(
    folder: Path, trained: CrossValidation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(folder), Path.rename

    def fail_on_the_new_one(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith("-former"):
            raise PermissionError(13, "Permission denied", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises(OutputError):
        save_regressors(folder, trained, train_recipe=RECIPE, extract={}, labels=LABELS)
    assert contents(folder) == before


def test_a_new_model_replaces_the_former_one_whole(folder: Path, trained: CrossValidation) -> None:
    one = CrossValidation(trained.splits[:1])
    save_regressors(folder, one, train_recipe=RECIPE, extract={"recipe": {}}, labels=LABELS)
    assert len(load_regressors(folder).regressors) == 1
    assert not (folder / "split-01.safetensors").exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, trained: CrossValidation) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no trained model"):
        save_regressors(tmp_path, trained, train_recipe=RECIPE, extract={}, labels=LABELS)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def damage(folder: Path, kind: str) -> None:
    model = folder / "model.json"
    stored = json.loads(model.read_text())
    match kind:
        case "no model.json":
            model.unlink()
        case "no JSON":
            model.write_text("{")
        case "newer":
            model.write_text(json.dumps({**stored, "format": 99}))
        case "unknown setting":
            model.write_text(json.dumps({**stored, "train": {**stored["train"], "magic": 1}}))
        case "weights missing":
            (folder / "split-01.safetensors").unlink()
        case "weights truncated":
            weights = folder / "split-00.safetensors"
            weights.write_bytes(weights.read_bytes()[:-40])
        case "other shapes":
            stored["shapes"]["crop"]["latent"][0] = 4
            model.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no model.json", "model.json is missing"),
        ("no JSON", "damaged"),
        ("newer", "newer version"),
        ("unknown setting", "damaged"),
        ("weights missing", "damaged"),
        ("weights truncated", "damaged"),
        ("other shapes", "damaged"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder: Path, kind: str, message: str) -> None:
    damage(folder, kind)
    with pytest.raises(RegressorFolderError, match=message) as error:
        load_regressors(folder)
    assert str(folder) in error.value.what
    assert error.value.hint
    assert "\n" not in str(error.value)
