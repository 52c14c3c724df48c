"""The metrics of video quality assessment; every figure that is reported anywhere comes from here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]

FIGURES = ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted")
_LOGISTIC_PARAMETERS = 4
_MAX_EVALUATIONS = 4000


@dataclass(frozen=True)
class Metrics:
    """How well predictions agree with the true scores; NaN where a figure is undefined.

    Attributes:
        srcc: Spearman's rank correlation, in [-1, 1].
        krcc: Kendall's rank correlation tau-b, in [-1, 1].
        plcc: Pearson's linear correlation of the predictions as they are, in [-1, 1].
        plcc_fitted: The same after the 4-parameter logistic fit of the predictions to the scores, in [0, 1].
        rmse_fitted: Root mean square error after that fit, on the scale of the true scores.
        n: Number of videos.
        reason: Empty, or why figures are NaN, or that a line stands in for the logistic fit.
    """

    srcc: float
    krcc: float
    plcc: float
    plcc_fitted: float
    rmse_fitted: float
    n: int
    reason: str = ""


def correlation_metrics(true: ArrayLike, predicted: ArrayLike) -> Metrics:
    """Compare predictions with the true scores.

    Args:
        true: (n,) the MOS, any finite scale.
        predicted: (n,) the predictions, any finite scale.

    Returns:
        The metrics. Inputs that define none (fewer than two videos, constant, NaN or infinite) give NaN and the reason.

    Raises:
        ValueError: The two differ in length or are not one-dimensional.
    """
    y, x = as_vectors(true, predicted)
    reason = _why_undefined(y, x)
    if reason:
        nan = float("nan")
        return Metrics(nan, nan, nan, nan, nan, n=len(y), reason=reason)
    fit = _fit_to_scores(y, x)
    srcc, krcc, plcc, plcc_fitted, rmse_fitted = figures_of(y, x, fit.predictions)
    reason = fit.reason or (_why_undefined(y, fit.predictions) if fit.predictions is not None else "")
    return Metrics(srcc, krcc, plcc, plcc_fitted, rmse_fitted, n=len(y), reason=reason)


def figures_of(y: Array, x: Array, fitted: Array | None) -> tuple[float, float, float, float, float]:
    """Return the figures of :data:`FIGURES`, each NaN where it is undefined.

    Args:
        y: (n,) the true scores.
        x: (n,) the predictions.
        fitted: (n,) the predictions after the logistic fit; None where there is none.
    """
    nan = float("nan")
    after_fit = (nan, nan)
    if fitted is not None:
        defined = not _why_undefined(y, fitted)
        after_fit = (_pearson(y, fitted) if defined else nan, _root_mean_square(fitted - y))
    if _why_undefined(y, x):
        return (nan, nan, nan, *after_fit)
    return (
        float(stats.spearmanr(y, x).statistic),
        float(stats.kendalltau(y, x).statistic),
        _pearson(y, x),
        *after_fit,
    )


def fitted_predictions(y: Array, x: Array) -> Array | None:
    """Return the predictions after the logistic fit, (n,) on the scale of the scores; None where there is no fit."""
    return None if _why_undefined(y, x) else _fit_to_scores(y, x).predictions


@dataclass(frozen=True)
class FittedCurve:
    """The logistic that was fitted to predictions and scores, to be drawn.

    Attributes:
        values: (m,) its values, on the scale of the scores.
        low: (m,) lower end of its pointwise confidence interval; NaN where it is undefined.
        high: (m,) upper end.
    """

    values: Array
    low: Array
    high: Array


def fitted_curve(
    true: ArrayLike, predicted: ArrayLike, at: ArrayLike, *, resamples: int = 100, level: float = 0.95, seed: int = 0
) -> FittedCurve | None:
    """Return the logistic fit of the predictions to the scores, with percentile intervals of the bootstrap over videos.

    Args:
        true: (n,) the scores.
        predicted: (n,) the predictions.
        at: (m,) the predictions to evaluate it at.
        resamples: Of the bootstrap.
        level: Share of the resampled curves inside the interval, in (0, 1).
        seed: Of the drawing.

    Returns:
        The curve, or None where no logistic can be fitted.

    Raises:
        ValueError: ``true`` and ``predicted`` differ in length or are not one-dimensional.
    """
    y, x = as_vectors(true, predicted)
    if _why_undefined(y, x) or len(y) <= _LOGISTIC_PARAMETERS:
        return None
    unit_y, unit_x = _standardise(y), _standardise(x)
    best = _fit_logistic(unit_y, unit_x)
    if best is None:
        return None
    unit_at = (np.asarray(at, np.float64) - _mean(x)) / _spread(x)
    draws = np.random.default_rng(seed).integers(0, len(y), (resamples, len(y)))
    refitted = [_fit_from(best, unit_y[draw], unit_x[draw]) for draw in draws]
    curves = [logistic(unit_at, *parameters) for parameters in refitted if parameters is not None]
    undefined = np.full((2, len(unit_at)), np.nan)
    ends = np.quantile(curves, ((1 - level) / 2, (1 + level) / 2), axis=0) if curves else undefined
    values, low, high = (each * _spread(y) + _mean(y) for each in (logistic(unit_at, *best), *ends))
    return FittedCurve(values, low, high)


def spearman_correlation(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the ``srcc`` of :func:`correlation_metrics` alone, without its costly fit; NaN where it is undefined.

    Raises:
        ValueError: The two differ in length or are not one-dimensional.
    """
    y, x = as_vectors(true, predicted)
    return float("nan") if _why_undefined(y, x) else float(stats.spearmanr(y, x).statistic)


def pearson_correlation(true: ArrayLike, predicted: ArrayLike) -> float:
    """Return the raw ``plcc`` of :func:`correlation_metrics` alone, without its costly fit; NaN where it is undefined.

    Raises:
        ValueError: The two differ in length or are not one-dimensional.
    """
    y, x = as_vectors(true, predicted)
    return float("nan") if _why_undefined(y, x) else _pearson(y, x)


def median_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """Return the median of each figure over several evaluations, leaving out those in which it is undefined.

    Args:
        metrics: At least one, such as those of the test parts of the splits.

    Returns:
        The medians; ``n`` is the median number of videos, rounded down; ``reason`` says how many figures were left out.

    Raises:
        ValueError: ``metrics`` is empty.
    """
    if not metrics:
        raise ValueError("The median of no metrics is undefined.")

    def median_of(values: list[float]) -> float:
        defined = [value for value in values if np.isfinite(value)]
        return float(np.median(defined)) if defined else float("nan")

    undefined = sum(not np.isfinite([each.srcc, each.plcc_fitted]).all() for each in metrics)
    return Metrics(
        srcc=median_of([each.srcc for each in metrics]),
        krcc=median_of([each.krcc for each in metrics]),
        plcc=median_of([each.plcc for each in metrics]),
        plcc_fitted=median_of([each.plcc_fitted for each in metrics]),
        rmse_fitted=median_of([each.rmse_fitted for each in metrics]),
        n=int(np.median([each.n for each in metrics])),
        reason=f"{undefined} of {len(metrics)} evaluations have undefined figures" if undefined else "",
    )


def logistic(x: Array, upper: float, lower: float, midpoint: float, slope: float) -> Array:
    """Return the 4-parameter logistic of VQEG, lower + (upper - lower) / (1 + exp(-(x - midpoint) / |slope|)).

    Source: Video Quality Experts Group, final report on the validation of objective models, phase I (2000), where the
    parameters are called beta_1 to beta_4. It falls rather than rises where ``upper`` is less than ``lower``.
    """
    steepness = max(abs(slope), float(np.finfo(np.float64).tiny))
    with np.errstate(over="ignore"):
        result: Array = lower + (upper - lower) * special.expit((x - midpoint) / steepness)
    return result


@dataclass(frozen=True)
class _Fit:
    predictions: Array | None
    reason: str = ""


def _fit_to_scores(y: Array, x: Array) -> _Fit:
    """Fit the logistic to the scores; a line stands in where the logistic cannot be fitted."""
    if len(y) <= _LOGISTIC_PARAMETERS:
        return _Fit(None, f"{len(y)} videos are too few to fit a logistic with {_LOGISTIC_PARAMETERS} parameters")
    unit_y, unit_x = _standardise(y), _standardise(x)
    parameters, reason = _fit_logistic(unit_y, unit_x), ""
    if parameters is not None:
        fitted = logistic(unit_x, *parameters)
    else:
        fitted, reason = _pearson(y, x) * unit_x, "the logistic fit did not converge; a line was fitted instead"
    if _is_constant(fitted):
        return _Fit(None, "the predictions are uncorrelated with the scores, so that the fit is constant")
    with np.errstate(over="ignore"):
        return _Fit(fitted * _spread(y) + _mean(y), reason)


def _fit_logistic(y: Array, x: Array) -> tuple[float, ...] | None:
    """Return the parameters of the least-squares logistic of ``x``, both standardised; None where no start converges.

    Started from a step of usual steepness, a gentler one, and one so gentle that it is nearly the least-squares line,
    hence the result is hardly worse than that line. All are turned downwards where the correlation is negative.
    """
    correlation = _pearson(y, x)
    highest, lowest = float(y.max()), float(y.min())
    upper, lower = (highest, lowest) if correlation >= 0 else (lowest, highest)
    gentle = 10.0
    starts = [
        (upper, lower, 0.0, 0.25),
        (upper, lower, 0.0, 1.0),
        (2 * gentle * correlation, -2 * gentle * correlation, 0.0, gentle),
    ]
    candidates = [parameters for start in starts if (parameters := _fit_from(start, y, x)) is not None]
    return min(candidates, key=lambda parameters: float(np.sum((logistic(x, *parameters) - y) ** 2)), default=None)


def _fit_from(start: tuple[float, ...], y: Array, x: Array) -> tuple[float, ...] | None:
    model: Callable[..., Array] = logistic
    with warnings.catch_warnings():
        # Only the values are used, so a covariance that cannot be estimated does not matter.
        warnings.simplefilter("ignore", optimize.OptimizeWarning)
        try:
            parameters, _ = optimize.curve_fit(model, x, y, p0=start, maxfev=_MAX_EVALUATIONS)
        except RuntimeError:
            return None
    return tuple(map(float, parameters)) if bool(np.isfinite(model(x, *parameters)).all()) else None


def as_vectors(true: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Return both as (n,) float64.

    Raises:
        ValueError: The two differ in length or are not one-dimensional.
    """
    y, x = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if y.ndim != 1 or y.shape != x.shape:
        raise ValueError(f"True scores of shape {y.shape} and predictions of shape {x.shape} cannot be compared.")
    return y, x


def _why_undefined(y: Array, x: Array) -> str:
    if len(y) < 2:
        return f"{len(y)} video(s) are too few"
    for values, name in ((y, "true scores"), (x, "predictions")):
        if not bool(np.isfinite(values).all()):
            return f"the {name} are not all finite"
        if _is_constant(values):
            return f"the {name} are constant"
    return ""


def _pearson(y: Array, x: Array) -> float:
    return float(np.clip(np.mean(_standardise(y) * _standardise(x)), -1.0, 1.0))


def _standardise(values: Array) -> Array:
    """Return the values with mean 0 and standard deviation 1; safe against overflow at any finite scale."""
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    centred = centred / np.abs(centred).max()
    result: Array = centred / np.sqrt(np.mean(centred**2))
    return result


def _root_mean_square(values: Array) -> float:
    """Return the square root of the mean square; safe against overflow at any finite scale."""
    largest = float(np.abs(values).max())
    if not math.isfinite(largest):  # a difference of numbers near the end of their range
        return math.inf
    return float(np.sqrt(np.mean((values / largest) ** 2)) * largest) if largest else 0.0


def _spread(values: Array) -> float:
    """Return the standard deviation; safe against overflow at any finite scale."""
    largest = float(np.abs(values).max())
    return float(np.std(values / largest) * largest)


def _mean(values: Array) -> float:
    """Return the mean; safe against overflow at any finite scale."""
    largest = float(np.abs(values).max())
    return float(np.mean(values / largest) * largest) if largest else 0.0


def _is_constant(values: Array) -> bool:
    """Whether the values are equal up to the rounding of their mean."""
    largest = float(np.abs(values).max())
    if largest == 0.0:
        return True
    scaled = values / largest
    return bool(np.abs(scaled - scaled.mean()).max() <= len(values) * np.finfo(np.float64).eps)
