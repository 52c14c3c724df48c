from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from diffvqa.stages._losses import plcc_loss, quality_loss, rank_loss

scores = hnp.arrays(np.float64, st.integers(3, 12), elements=st.integers(-20, 20).map(float), unique=True)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@given(scores)
def test_plcc_loss_is_half_of_one_minus_the_correlation(values: np.ndarray) -> None:
    target = np.random.default_rng(len(values)).normal(size=len(values))
    expected = (1 - np.corrcoef(values, target)[0, 1]) / 2
    assert plcc_loss(torch.from_numpy(values), torch.from_numpy(target)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("predicted", "target"),
    [([0.1] * 4, [1.0, 2, 3, 4]), ([1.0, 2, 3], [0.7, 0.7, 0.7]), ([1.0], [2.0]), ([0.0, 0.0], [1.0, 2.0])],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undefined_correlation_costs_nothing_and_teaches_nothing(
    predicted: list[float], target: list[float], dtype: torch.dtype
) -> None:
    p = torch.tensor(predicted, dtype=dtype, requires_grad=True)
    loss = plcc_loss(p, torch.tensor(target, dtype=dtype))
    (gradient,) = torch.autograd.grad(loss, p)
    assert loss.item() == 0.0
    assert gradient.tolist() == [0.0] * len(predicted)


@given(scores, st.data())
def test_rank_loss_is_zero_exactly_when_the_order_agrees(values: np.ndarray, data: st.DataObject) -> None:
    target = np.array(data.draw(st.permutations(list(range(len(values))))), np.float64)
    loss = rank_loss(torch.from_numpy(values), torch.from_numpy(target)).item()
    agrees = np.array_equal(np.argsort(values), np.argsort(target))
    assert (loss == 0.0) == agrees


@given(scores, st.floats(0.01, 100), st.floats(-100, 100))
def test_rank_loss_does_not_change_under_a_rising_line(values: np.ndarray, slope: float, shift: float) -> None:
    target = torch.from_numpy(np.random.default_rng(len(values)).normal(size=len(values)))
    before = rank_loss(torch.from_numpy(values), target).item()
    after = rank_loss(torch.from_numpy(slope * values + shift), target).item()
    assert after == pytest.approx(before, abs=1e-7)


def test_rank_loss_by_hand() -> None:
    # pairs (0, 1) and (0, 2) are in the wrong order, by 1 and 2; the spread of 3, 2, 1 is sqrt(2 / 3)
    loss = rank_loss(tensor(3.0, 2.0, 1.0), tensor(1.0, 2.0, 2.0))
    assert loss.item() == pytest.approx((1 + 2) / 3 / np.sqrt(2 / 3))


def test_rank_loss_of_constant_predictions_has_no_gradient() -> None:
    predicted = tensor(2.0, 2.0, 2.0)
    (gradient,) = torch.autograd.grad(rank_loss(predicted, tensor(1.0, 2.0, 3.0)), predicted)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


@given(scores)
def test_a_step_against_the_gradient_lowers_the_loss(values: np.ndarray) -> None:
    target = torch.from_numpy(np.random.default_rng(3).permutation(len(values)).astype(np.float64))
    predicted = torch.from_numpy(values).requires_grad_()
    loss = quality_loss(predicted, target, plcc_weight=1.0, rank_weight=0.3)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assume(gradient.norm() > 1e-3)
    stepped = predicted.detach() - 1e-5 * gradient / gradient.norm()
    assert quality_loss(stepped, target, 1.0, 0.3) < loss


def test_the_weights_weigh() -> None:
    predicted, target = tensor(1.0, 3.0, 2.0), tensor(1.0, 2.0, 3.0)
    parts = plcc_loss(predicted, target), rank_loss(predicted, target)
    assert quality_loss(predicted, target, 2.0, 5.0).item() == pytest.approx((2 * parts[0] + 5 * parts[1]).item())
