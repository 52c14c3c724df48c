"""Fits side by side: the same numbers as one by one, and one that fails ends the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from stage_two_material import RECIPE, make_material

from diffvqa.stages._fits_at_once import fit_at_once
from diffvqa.stages._fitting import FitUnwantedError
from diffvqa.stages._training import TrainingSetup, train_all

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_splits_side_by_side_give_the_numbers_that_they_give_one_by_one(precision: str) -> None:
    data = make_material()
    recipe = RECIPE.model_copy(update={"splits": 3, "dropout": 0.3, "precision": precision})
    alone, together = (
        train_all(data.features, data.samples, data.splits(recipe), recipe, TrainingSetup(threads=threads))
        for threads in (1, 3)
    )
    for one, other in zip(alone.splits, together.splits, strict=True):
        assert one.test_predicted == other.test_predicted
        assert one.fitted.curve == other.fitted.curve
        for name, tensor in one.regressor.state_dict().items():
            assert torch.equal(tensor, other.regressor.state_dict()[name]), name


def test_as_many_run_at_once_as_there_are_threads_and_results_come_in_order() -> None:
    meeting = threading.Barrier(2)

    def fit(item: int, _is_wanted: Callable[[], bool]) -> tuple[int, int]:
        meeting.wait(timeout=60)  # a fit alone would wait in vain
        return item, torch.get_num_threads()

    before = torch.get_num_threads()
    assert fit_at_once(fit, [3, 1, 4, 1], CPU, threads=2) == [(3, 1), (1, 1), (4, 1), (1, 1)]
    assert torch.get_num_threads() == before


def test_threads_that_are_left_over_are_shared_by_the_operations() -> None:
    seen = fit_at_once(lambda _item, _is_wanted: torch.get_num_threads(), ["only"], CPU, threads=4)
    assert seen == [4]
    assert fit_at_once(lambda item, _is_wanted: item, [], CPU) == []


@pytest.mark.parametrize("error", [ValueError("of the data"), KeyboardInterrupt()])
def test_the_error_of_one_ends_the_others(error: BaseException) -> None:
    def fit(item: int, is_wanted: Callable[[], bool]) -> int:
        if item == 1:
            raise error
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if not is_wanted():
                raise FitUnwantedError
            time.sleep(0.001)
        pytest.fail("nobody told this fit that another had failed")

    with pytest.raises(type(error)):
        fit_at_once(fit, [0, 1, 2, 3], CPU, threads=2)
