"""Training, searching and evaluating in calls that are sent away give what one process gives.

What is sent, and what comes back, goes through Ray's own serialisation; who does the calls is this process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pytest
from elsewhere_material import grid, make_runs, model_files, sweep, train

from diffvqa.pipeline import _regressor_training as regressor_training
from diffvqa.pipeline._config import Settings
from diffvqa.pipeline._engines import choice
from diffvqa.pipeline._engines.interface import CallPlace, Engine
from diffvqa.pipeline._engines.local import LocalEngine
from diffvqa.stages._training_journal import TrainingJournal

cloudpickle = pytest.importorskip("ray.cloudpickle")

ON_RAY = ("--engine", "ray", "--address", "10.0.0.1:6379")


Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Elsewhere(LocalEngine):
    """Does calls on what is left of them after they were sent, as they would be by another process."""

    calls_at_once = 2

    def submit(self, function: Callable[[Argument, CallPlace], Result], argument: Argument) -> Future[Result]:
        done: Future[Result] = Future()
        done.set_result(sent(sent(function)(sent(argument), CallPlace("cpu", 1))))
        return done


def sent(thing: Result) -> Result:
    received: Result = cloudpickle.loads(cloudpickle.dumps(thing))
    return received


@pytest.fixture
def engine() -> Elsewhere:
    return Elsewhere([], attempts=1)


@pytest.fixture
def asked(engine: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the engine in the place of that which a command asks for; what was asked for is noted."""
    addresses: list[str] = []
    choose = choice.choose_engine

    def chosen(settings: Settings) -> nullcontext[Engine] | Engine:
        if settings.runtime.engine == "local":
            return choose(settings)
        addresses.append(settings.runtime.ray_address)
        return nullcontext(engine)

    monkeypatch.setattr(choice, "choose_engine", chosen)
    monkeypatch.setattr(regressor_training, "choose_engine", chosen)
    return addresses


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("runs"))


def test_splits_trained_in_calls_are_those_of_one_process_to_the_last_bit(runs: Path, asked: list[str]) -> None:
    pretrained = ("--pretrain", "second", "--set", "train.pretrain_epochs=1")
    assert train(runs, *pretrained) == 0
    here = model_files(runs)
    assert train(runs, *pretrained, *ON_RAY) == 0
    assert model_files(runs) == here
    assert {"split-00.safetensors", "split-02.safetensors", "metrics.json", "predictions.csv"} <= here.keys()
    assert asked == ["10.0.0.1:6379"]
    assert not (runs / "first/training").exists()


@pytest.mark.usefixtures("asked")
def test_splits_that_are_done_are_not_done_again_wherever_the_training_goes_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(runs) == 0
    here = model_files(runs)
    keep, kept = TrainingJournal.keep, list[str]()

    def keep_first(self: TrainingJournal, fit: str, state: object) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(fit)
        keep(self, fit, state)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingJournal, "keep", keep_first)
        assert train(runs, *ON_RAY) == 130
    assert [path.stem for path in (runs / "first/training").glob("*.safetensors")] == kept
    shutil.copytree(runs / "first/training", runs / "copy")
    assert train(runs, *ON_RAY) == 0
    assert model_files(runs) == here
    shutil.move(runs / "copy", runs / "first/training")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingJournal, "keep", lambda _self, fit, _state: kept.append(fit))
        assert train(runs) == 0
    assert kept[0] not in kept[1:]
    assert len(set(kept)) == 3
    assert model_files(runs) == here


def test_a_grid_is_the_same(runs: Path, asked: list[str]) -> None:
    assert train(runs) == 0
    figures, predictions = here = grid(runs)
    assert grid(runs, *ON_RAY) == here
    assert [row["protocol"] for row in figures] == ["held-out", "cross-data-set", "cross-data-set", "held-out"]
    assert len(predictions.splitlines()) > 28
    assert asked == ["10.0.0.1:6379"]


def test_a_search_tries_the_same_recipes_and_gives_up_the_same(
    runs: Path, asked: list[str], engine: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial at a time; with two the study knows less when it is asked, and tries others."""
    here = sweep(runs)
    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "calls_at_once", 1)
        assert sweep(runs, *ON_RAY) == here
    two = sweep(runs, *ON_RAY)
    assert [row[0] for row in two] == [str(number) for number in range(7)]
    assert {row[1] for row in two} <= {"complete", "pruned"}
    assert two[0][2:] == here[0][2:]
    assert asked == 2 * ["10.0.0.1:6379"]
