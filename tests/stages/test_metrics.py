from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from diffvqa.stages._metrics import (
    Metrics,
    correlation_metrics,
    logistic,
    median_metrics,
    pearson_correlation,
    spearman_correlation,
)

FIGURES = ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted")
any_floats = hnp.arrays(np.float64, st.integers(0, 8), elements=st.floats(allow_nan=True, allow_infinity=True))


def noisy_scores(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(50.0, 12.0, n)
    return logistic(x, 4.6, 1.2, 48.0, 7.0) + rng.normal(0.0, 0.3, n), x


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    y, x = noisy_scores(seed)
    found = correlation_metrics(y, x)
    assert found.srcc == pytest.approx(stats.spearmanr(y, x).statistic)
    assert found.krcc == pytest.approx(stats.kendalltau(y, x).statistic)
    assert found.plcc == pytest.approx(stats.pearsonr(y, x).statistic)
    assert (found.n, found.reason) == (60, "")
    assert spearman_correlation(y, x) == found.srcc
    assert pearson_correlation(y, x) == found.plcc


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_logistic_relation_is_fitted_exactly(direction: float, scale: float) -> None:
    x = np.linspace(0.0, 1.0, 40)
    y = logistic(x, 90.0, 10.0, 0.4, 0.1)
    found = correlation_metrics(y, direction * scale * x + 7.0)
    assert found.plcc_fitted == pytest.approx(1.0, abs=1e-6)
    assert found.rmse_fitted == pytest.approx(0.0, abs=0.05)
    assert abs(found.plcc) < 0.99


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_fit_is_hardly_worse_than_a_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = rng.normal(size=15), rng.normal(size=15)
    found = correlation_metrics(y, x)
    assert found.plcc_fitted >= abs(found.plcc) - 0.01
    assert found.rmse_fitted <= 1.01 * np.std(y)


def test_the_logistic_by_hand() -> None:
    x = np.array([2.0, 2.0 + math.log(3.0)])
    assert logistic(x, 5.0, 1.0, 2.0, 1.0) == pytest.approx([3.0, 4.0])
    assert logistic(x, 5.0, 1.0, 2.0, -1.0) == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize(
    ("y", "x", "reason"),
    [
        ([], [], "too few"),
        ([1.0], [2.0], "too few"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "true scores are constant"),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "predictions are constant"),
        ([1.0, math.nan, 3.0], [1.0, 2.0, 3.0], "true scores are not all finite"),
        ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0], "predictions are not all finite"),
    ],
)
def test_what_defines_no_metric_is_nan_with_a_reason(y: list[float], x: list[float], reason: str) -> None:
    found = correlation_metrics(y, x)
    assert all(math.isnan(getattr(found, figure)) for figure in FIGURES)
    assert reason in found.reason
    assert found.n == len(y)


def test_four_videos_have_correlations_but_no_fit() -> None:
    found = correlation_metrics([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0])
    assert found.srcc == pytest.approx(0.8)
    assert math.isnan(found.plcc_fitted)
    assert "too few to fit" in found.reason


def test_a_line_stands_in_for_a_fit_that_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr("scipy.optimize.curve_fit", fail)
    y, x = noisy_scores(0)
    found = correlation_metrics(y, -x)
    assert found.plcc_fitted == pytest.approx(-found.plcc)
    assert found.rmse_fitted == pytest.approx(np.std(y) * math.sqrt(1 - found.plcc**2))
    assert "line" in found.reason


@settings(max_examples=150)
@given(st.data())
def test_no_input_of_equal_lengths_makes_it_fail(data: st.DataObject) -> None:
    y = data.draw(any_floats)
    x = data.draw(hnp.arrays(np.float64, len(y), elements=st.floats(allow_nan=True, allow_infinity=True)))
    found = correlation_metrics(y, x)
    assert all(-1 <= value <= 1 for value in (found.srcc, found.krcc, found.plcc) if not math.isnan(value))
    assert found.reason or not math.isnan(found.plcc_fitted)


@pytest.mark.parametrize("compare", [correlation_metrics, spearman_correlation, pearson_correlation])
def test_different_lengths_are_an_error(compare: object) -> None:
    assert callable(compare)
    with pytest.raises(ValueError, match="cannot be compared"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0])


def test_the_median_leaves_out_what_is_undefined() -> None:
    defined = [Metrics(s, s, s, s, 1 - s, n=20) for s in (0.2, 0.8, 0.9)]
    found = median_metrics([*defined, correlation_metrics([1.0], [1.0])])
    assert (found.srcc, found.plcc_fitted) == (0.8, 0.8)
    assert found.rmse_fitted == pytest.approx(0.2)
    assert found.reason == "1 of 4 evaluations have undefined figures"


def test_the_median_of_nothing_defined_is_nan() -> None:
    assert math.isnan(median_metrics([correlation_metrics([1.0], [1.0])]).srcc)
    with pytest.raises(ValueError, match="no metrics"):
        median_metrics([])
