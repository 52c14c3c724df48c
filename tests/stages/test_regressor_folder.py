from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffvqa.cache.errors import OutputError
from diffvqa.stages import regressor_folder
from diffvqa.stages.errors import RegressorFolderError
from diffvqa.stages.regressor_folder import load_regressors, save_regressors
from diffvqa.stages.train_recipe import TrainRecipe
from diffvqa.stages.training import CrossValidation, VideoSample, predict, train_all

RECIPE = TrainRecipe(splits=2, epochs=1, batch_size=4, width=4, tcab_patch=8, tcab_width=4, tcab_state=2, head_width=8)
EXTRACT = {"recipe": {"model": "nano", "frames": 2}, "fingerprint": {"weights": "abc"}}
LABEL = {"name": "MOS", "note": "1 to 5"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_features(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for view, leading in (("resize", (2,)), ("crop", (2, 2))):
        arrays[f"{view}/latent"] = rng.normal(size=(*leading, 3, 8, 8)).astype(np.float16)
        arrays[f"{view}/multiscale"] = rng.normal(size=(*leading, 5, 4, 4)).astype(np.float16)
        arrays[f"{view}/frames"] = rng.integers(0, 256, (*leading, 8, 8, 3), np.uint8)
    return arrays


@pytest.fixture(scope="module")
def trained() -> CrossValidation:
    features = {f"v,{n}": make_features(n) for n in range(8)}  # a comma in an id must not break the tables
    samples = [VideoSample(video_id, float(n), f"g{n}") for n, video_id in enumerate(features)]
    return train_all(features, samples, RECIPE, torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path, trained: CrossValidation) -> Path:
    path = tmp_path / "runs" / "model"
    save_regressors(path, trained, train_recipe=RECIPE, extract=EXTRACT, label=LABEL)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_read_back_predicts_the_same(folder: Path, trained: CrossValidation) -> None:
    loaded = load_regressors(folder)
    assert (loaded.recipe, loaded.extract, loaded.label) == (RECIPE, EXTRACT, LABEL)
    assert not any(regressor.training for regressor in loaded.regressors)
    features = make_features(77)
    expected = predict([split.regressor for split in trained.splits], features)
    found = predict(loaded.regressors, features)
    assert (found.score, found.score_std) == (expected.score, expected.score_std)
    assert np.array_equal(found.frame_quality, expected.frame_quality)
    assert np.array_equal(found.frame_weight, expected.frame_weight)


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
    assert [float(row["train_loss"]) for row in curve] == [split.curve[0].train_loss for split in trained.splits]


def test_metrics_and_splits_are_strict_json(folder: Path, trained: CrossValidation) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    assert stored["splits"][1]["test"]["n"] == trained.splits[1].test.n
    model = json.loads((folder / "model.json").read_text(), parse_constant=refuse)
    assert model["splits"][0]["test"] == list(trained.splits[0].split.test)
    assert set(model["software"]) >= {"diffvqa", "torch", "numpy"}


def test_nothing_but_the_model_is_left_beside_it(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    suffixes = {path.suffix for path in folder.iterdir()}
    assert suffixes == {".safetensors", ".json", ".csv"}


@pytest.mark.parametrize("broken", ["_write_csv", "save_file"])
def test_an_interrupted_save_leaves_the_former_model(
    folder: Path, trained: CrossValidation, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)

    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(regressor_folder, broken, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_regressors(folder, trained, train_recipe=RECIPE, extract={}, label={})
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
        save_regressors(folder, trained, train_recipe=RECIPE, extract={}, label={})
    assert contents(folder) == before


def test_a_new_model_replaces_the_former_one_whole(folder: Path, trained: CrossValidation) -> None:
    one = CrossValidation(trained.splits[:1])
    save_regressors(folder, one, train_recipe=RECIPE, extract={"recipe": {}}, label=LABEL)
    assert len(load_regressors(folder).regressors) == 1
    assert not (folder / "split-01.safetensors").exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, trained: CrossValidation) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no trained model"):
        save_regressors(tmp_path, trained, train_recipe=RECIPE, extract={}, label={})
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
