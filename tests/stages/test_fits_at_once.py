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


def predictions_of_splits(precision: str, threads: int) -> list[dict[str, float]]:
    data = make_material()
    recipe = RECIPE.model_copy(update={"splits": 3, "dropout": 0.3, "precision": precision})
    result = train_all(data.features, data.samples, data.splits(recipe), recipe, TrainingSetup(threads=threads))
    return [dict(split.test_predicted) for split in result.splits]


def test_splits_side_by_side_give_the_numbers_that_they_give_one_by_one() -> None:
    assert predictions_of_splits("fp32", threads=1) == predictions_of_splits("fp32", threads=3)


def test_in_reduced_precision_they_do_so_but_for_rounding() -> None:
    alone, together = (predictions_of_splits("bf16", threads) for threads in (1, 3))
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


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
