"""Train, ablate, evaluate and sweep as a user types them, on small caches of random features with a planted score."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from stage_two_material import RECIPE, Material, make_material, write_dataset

from diffvqa.pipeline._cli import main
from diffvqa.stages._fit_state import FitState
from diffvqa.stages._metrics import correlation_metrics, median_metrics
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._regressor_folder import load_regressors
from diffvqa.stages._splits_file import read_splits
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_journal import TrainingJournal

SMALL = [f"--set=train.{key}={getattr(RECIPE, key)}" for key in ("width", "tcab_patch", "tcab_width", "tcab_state")]
SMALL += ["--set=train.learning_rate=0.02", "--set=train.batch_size=4", "--set=train.head_width=8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets with features, the first two with a trained model each."""
    folder = tmp_path_factory.mktemp("runs")
    write_dataset(folder, "first", make_material(24, frames=2))
    write_dataset(folder, "second", make_material(20, frames=2, scale=0.7), official=True)
    write_dataset(folder, "other", make_material(6, frames=2), steps=50)
    for name in ("first", "second"):
        assert main(["train", name, "--runs", str(folder), "--splits", "2", "--epochs", "4", *SMALL]) == 0
    return folder


def train(runs: Path, *arguments: str) -> int:
    return main(["train", *arguments, "--runs", str(runs), *SMALL])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_tells_what_it_did(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(runs, "first", "--splits", "1", "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert re.search(r"waited for data \d+\.\d% of the steps' time; selective scan by \w+: \w+", out)
    assert not (runs / "first/training").exists()


def test_a_training_without_a_scan_neither_compiles_nor_tells_of_one(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To choose one takes half a minute on a machine where the kernels are not compiled yet."""
    for module in ("diffvqa.pipeline._regressor_training", "diffvqa.stages._mamba"):
        monkeypatch.setattr(f"{module}.choose_scan", lambda *_: pytest.fail("a scan was chosen"))
    assert train(runs, "first", "--splits", "1", "--epochs", "1", "--set=train.tcab=false") == 0
    assert "selective scan" not in capsys.readouterr().out


def test_the_maps_of_joined_networks_are_compared_by_themselves(tmp_path: Path) -> None:
    levels = {"a/map/mean": (0, 2), "b/map/mean": (2, 4), "b/map/std": (4, 5)}
    for name in ("joined", "before"):
        write_dataset(tmp_path, name, make_material(15, frames=2), levels=levels)
    assert train(tmp_path, "joined", "--pretrain", "before", "--splits", "1", "--epochs", "1") == 0
    (regressor,) = load_regressors(tmp_path / "joined/model").regressors
    assert regressor.networks == (NetworkMaps(2, 0), NetworkMaps(2, 1))
    # In either view: mean and spread of the first network's maps, which has no deviations; the second's means, then its
    # deviations and the spread of all; the textures.
    sizes = [len(mean) for name, mean in regressor.named_buffers() if re.fullmatch(r"kernel\.kernels\.\d\.mean", name)]
    assert sizes[:3] == [2 * (2 + 2), 2 * 2, 2 * (1 + 3)]
    assert len(sizes) == 5
    assert main(["evaluate", "--model", "joined", "--on", "before", "--runs", str(tmp_path)]) == 0


def test_a_cache_without_maps_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_material(6, frames=2)
    for arrays in data.features.values():
        del arrays["resize/multiscale"]
    write_dataset(tmp_path, "mapless", data)
    assert train(tmp_path, "mapless", "--splits", "1", "--epochs", "1") == 2
    assert "lack resize/multiscale" in capsys.readouterr().err


def test_official_splits_are_kept_unless_random_ones_are_asked_for(runs: Path) -> None:
    (split,) = read_splits(runs / "second/model/splits.csv").splits
    assert [int(video_id[1:]) % 3 for video_id in split.test] == [0] * 7
    assert train(runs, "second", "--epochs", "1", "--splits", "2", "--random-splits") == 0
    assert [one.name for one in read_splits(runs / "second/model/splits.csv").splits] == ["split-0", "split-1"]
    assert train(runs, "second", "--epochs", "2") == 0


def test_the_splits_of_a_model_can_be_used_again(runs: Path, tmp_path: Path) -> None:
    given = tmp_path / "mine.csv"
    given.write_bytes((runs / "first/model/splits.csv").read_bytes())
    assert train(runs, "first", "--epochs", "1", "--splits-file", str(given), "--seed", "7") == 0
    assert (runs / "first/model/splits.csv").read_bytes() == given.read_bytes()


def test_splits_that_do_not_fit_are_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.csv").write_text("video_id,split-0\nnosuch.mp4,train\n")
    assert train(runs, "first", "--splits-file", str(tmp_path / "mine.csv")) == 2
    assert "names 1 video(s) that the data set does not have: nosuch.mp4" in capsys.readouterr().err


def test_an_interrupted_training_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep, kept = TrainingJournal.keep, 0

    def keep_three(journal: TrainingJournal, fit: str, state: FitState) -> None:
        nonlocal kept
        kept += 1
        if kept > 3:
            raise KeyboardInterrupt
        keep(journal, fit, state)

    write_dataset(tmp_path, "set", make_material(24, frames=2))
    assert train(tmp_path, "set", "--splits", "2", "--epochs", "4") == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "set/model").glob("*.safetensors")}
    monkeypatch.setattr(TrainingJournal, "keep", keep_three)
    assert train(tmp_path, "set", "--splits", "2", "--epochs", "4") == 130
    assert "Run the same command again to go on" in capsys.readouterr().err
    assert list((tmp_path / "set/training").glob("split-*.safetensors"))
    monkeypatch.setattr(TrainingJournal, "keep", keep)
    assert train(tmp_path, "set", "--splits", "2", "--epochs", "4") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "set/model").glob("*.safetensors")} == expected


def test_what_an_earlier_version_began_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its regressors may be built in another way, and then its states do not fit."""

    def interrupted_in(version: int) -> str:
        monkeypatch.setattr("diffvqa.pipeline._labelled.REGRESSOR_FORMAT", version)
        assert train(tmp_path, "set", "--splits", "1", "--epochs", "2") == 130
        return (tmp_path / "set/training/identity.txt").read_text()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_dataset(tmp_path, "set", make_material(12, frames=2))
    monkeypatch.setattr(TrainingJournal, "keep", interrupt)
    assert interrupted_in(1) != interrupted_in(2) == interrupted_in(2)


def test_several_data_sets_make_one_model_with_a_scale_for_each(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(runs, "first", "second", "--random-splits", "--splits", "1", "--epochs", "4") == 0
    out = capsys.readouterr().out
    assert "first: held-out contents" in out
    assert "second: held-out contents" in out
    loaded = load_regressors(runs / "first+second/model")
    assert tuple(loaded.labels) == ("first", "second")
    rows = read_csv(runs / "first+second/model/predictions.csv")
    assert {row["video_id"].split("/")[0] for row in rows} == {row["dataset"] for row in rows} == {"first", "second"}
    # A video is on the same side as when its set is trained on alone.
    assert train(runs, "first", "--splits", "1", "--epochs", "1") == 0
    alone, both = (read_splits(runs / name / "model/splits.csv").splits[0] for name in ("first", "first+second"))
    assert {f"first/{video_id}" for video_id in alone.test} <= set(both.test)


def test_pretraining_is_told_and_kept_out_of_the_test(runs: Path) -> None:
    arguments = ("--splits", "1", "--epochs", "2", "--set", "train.pretrain_epochs=3")
    assert train(runs, "second", "--random-splits", "--pretrain", "first", *arguments) == 0
    assert tuple(load_regressors(runs / "second/model").labels) == ("second",)
    assert train(runs, "second", "--epochs", "2") == 0


@pytest.mark.parametrize("arguments", [("first", "other"), ("first", "--pretrain", "other")])
def test_features_made_otherwise_do_not_go_together(
    runs: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(runs, *arguments) == 2
    assert "steps is 50 there, (absent) was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("first", "first"), "named twice"),
        (("first", "second", "--cache", "x"), "--cache names the features of one data set"),
        (("first", "--ablate", "--pretrain", "second"), "Leave out --pretrain"),
        (("first", "--set", "train.plcc_weight=0", "--set", "train.rank_weight=0"), "nothing would be learned"),
    ],
)
def test_what_makes_no_sense_is_refused(
    runs: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(runs, *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_ablation_is_one_command_and_keeps_the_model(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (runs / "first/model/model.json").read_bytes()
    assert train(runs, "first", "--ablate", "--splits", "1", "--epochs", "1") == 0
    out = capsys.readouterr().out
    variants = [
        "full",
        "without dff",
        "without tdm",
        "without fff",
        "without tcab",
        "without texture",
        "without flat texture",
        "without kernel",
        "without frame weights",
    ]
    variants += ["resized view alone", "crops alone"]
    assert [variant for variant in variants if variant in out] == variants
    stored = json.loads((runs / "first/ablation/ablation.json").read_text())
    assert [row["variant"] for row in stored["rows"]] == variants
    assert [row["regressor"] for row in read_csv(runs / "first/ablation/ablation.csv")] == variants
    assert (runs / "first/model/model.json").read_bytes() == before
    assert not list((runs / "first").glob("ablation-*"))


def evaluate(runs: Path, *arguments: str) -> int:
    return main(["evaluate", "--runs", str(runs), *arguments])


def test_a_model_is_evaluated_on_another_set_and_on_its_own(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, table, predictions = tmp_path / "figures.json", tmp_path / "grid.tex", tmp_path / "predictions.csv"
    arguments = ["--model", "first", "--model", "second", "--on", "first", "--on", "second"]
    arguments += ["--json", str(figures), "--table", str(table), "--predictions", str(predictions)]
    assert evaluate(runs, *arguments) == 0
    out = capsys.readouterr().out
    assert "* a data set of the model's own" in out
    rows = json.loads(figures.read_text())
    assert [(row["model"], row["on"], row["protocol"]) for row in rows] == [
        ("first", "first", "held-out"),
        ("first", "second", "cross-data-set"),
        ("second", "first", "cross-data-set"),
        ("second", "second", "held-out"),
    ]
    assert all({"srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted", "n"} <= row.keys() for row in rows)
    assert [row["n"] for row in rows][1:3] == [20, 24]
    written = read_csv(predictions)
    for row in rows:
        mine = [one for one in written if (one["model"], one["on"]) == (row["model"], row["on"])]
        by_split = [[one for one in mine if one["split"] == split] for split in dict.fromkeys(o["split"] for o in mine)]
        found = median_metrics(
            [
                correlation_metrics([float(one["true"]) for one in part], [float(one["predicted"]) for one in part])
                for part in by_split
            ]
        )
        assert row["srcc"] == pytest.approx(found.srcc)
    latex = table.read_text()
    assert latex.startswith(r"\begin{tabular}{lcccccccc}")
    assert r"training set & \multicolumn{4}{c}{first} & \multicolumn{4}{c}{second} \\" in latex


def test_the_figures_go_to_standard_output_alone_when_asked(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs, "--model", "first", "--on", "second", "--json", "-") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["trained_on"], row["on"], row["backbone"]) == (["first"], "second", "tiny")


def test_features_of_another_fingerprint_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs, "--model", "first", "--on", "other") == 2
    assert "steps is 50 there, (absent) was asked for" in capsys.readouterr().err


def test_a_table_of_an_unknown_kind_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(runs, "--model", "first", "--on", "second", "--table", str(tmp_path / "x.docx")) == 2
    assert "Use one of: .txt, .csv, .md, .tex" in capsys.readouterr().err


SEARCH = ("--search", "learning_rate=1e-4:3e-2:log", "--search", "width=2,4", "--search", "head_width=4:8")


def sweep(runs: Path, trials: int, *arguments: str) -> int:
    return main(["sweep", "first", "--runs", str(runs), "--trials", str(trials), "--splits", "2", *arguments, *SMALL])


def test_a_search_goes_on_and_ends_with_a_recipe_that_trains(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*SEARCH, "--set", "train.epochs=1")
    assert sweep(runs, 3, *arguments) == 0
    assert sweep(runs, 5, *arguments) == 0
    out = capsys.readouterr().out
    assert "5 trials, 3 of them before" in out
    trials = read_csv(runs / "first/sweep/trials.csv")
    assert sorted(int(trial["trial"]) for trial in trials) == [0, 1, 2, 3, 4]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    values = [float(trial["validation"]) for trial in complete]
    assert values == sorted(values, reverse=True)
    best = tomllib.loads((runs / "first/sweep/best.toml").read_text())["train"]
    assert best["learning_rate"] == pytest.approx(float(complete[0]["learning_rate"]))
    assert (best["width"], best["head_width"]) == (int(complete[0]["width"]), int(complete[0]["head_width"]))
    assert 1e-4 <= best["learning_rate"] <= 3e-2
    assert main(["train", "first", "--runs", str(runs), "--config", str(runs / "first/sweep/best.toml")]) == 0


def test_a_recipe_that_does_worse_than_half_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried on the second split, once enough others have been; what a fit is worth is said here."""
    worth = {1e-3: 0.1, 2e-3: 0.7, 3e-3: 0.8}
    fits: list[float] = []

    def fit(_part: object, recipe: TrainRecipe, _device: object) -> SimpleNamespace:
        fits.append(recipe.learning_rate)
        return SimpleNamespace(curve=[SimpleNamespace(value=2 * worth[recipe.learning_rate])], best_epoch=0)

    monkeypatch.setattr("diffvqa.pipeline._recipe_search.fit_regressor", fit)
    write_dataset(tmp_path, "first", make_material(24, frames=1))
    assert sweep(tmp_path, 20, "--search", "learning_rate=1e-3,2e-3,3e-3") == 0
    trials = read_csv(tmp_path / "first/sweep/trials.csv")
    states = [trial["state"] for trial in trials]
    assert states == sorted(states), "those given up stand below the complete ones"
    assert len(fits) == 2 * states.count("complete") + states.count("pruned")
    for state in ("complete", "pruned"):
        values = [float(trial["validation"]) for trial in trials if trial["state"] == state]
        assert values, f"no trial is {state}"
        assert values == sorted(values, reverse=True)
    assert all(float(trial["learning_rate"]) < 3e-3 for trial in trials if trial["state"] == "pruned")
    assert any(float(trial["learning_rate"]) == 1e-3 for trial in trials if trial["state"] == "pruned")
    assert float(trials[0]["learning_rate"]) == 3e-3


def test_a_search_never_reads_the_test_part(tmp_path: Path) -> None:
    """The features of the test part may be damaged, and its labels anything: the search finds the same."""
    data = make_material(24, frames=2)
    tested = set(data.splits(RECIPE.model_copy(update={"splits": 1}))[0].test)
    found = []
    for name in ("as it is", "spoiled"):
        features = {
            video_id: {array: values * (name == "as it is" or video_id not in tested) for array, values in each.items()}
            for video_id, each in data.features.items()
        }
        folder = tmp_path / name.replace(" ", "-")
        write_dataset(folder, "first", Material(features, data.samples))
        arguments = ["sweep", "first", "--runs", str(folder), "--trials", "2", "--splits", "1", *SEARCH, *SMALL]
        assert main([*arguments, "--set", "train.epochs=1"]) == 0
        found.append((folder / "first/sweep/trials.csv").read_text())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("learning_rat=1:2", "Did you mean 'learning_rate'?"),
        ("seed=1,2", "'seed' cannot be searched"),
        ("dropout=0.1:1.5", "less than 1"),
        ("width=4:2", "is no range and no list"),
        ("width=two", "valid integer"),
        ("learning_rate=0:1:log", "is no range and no list"),
    ],
)
def test_a_search_space_that_makes_no_sense_is_refused(
    runs: Path, search: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(runs, 1, "--search", search) == 2
    assert message in capsys.readouterr().err
