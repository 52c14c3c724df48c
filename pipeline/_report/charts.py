"""The charts of a report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from diffvqa.pipeline._report.content import HeldOutVideo, TrainedModel
from diffvqa.pipeline._report.svg import Axis, Chart, Margins
from diffvqa.stages._metrics import fitted_curve
from diffvqa.stages._prediction import VideoScore

_MOST_POINTS = 2000
_CURVE_POINTS = 60
_MOST_GROUPS = 24
_SPLIT_COLOURS = 10


@dataclass(frozen=True)
class Figure:
    """A chart with what is said below it."""

    title: str
    svg: Markup
    caption: str


def scatter(videos: Sequence[HeldOutVideo], label: str) -> Figure:
    """Return true against predicted scores, with the logistic fit and its confidence interval."""
    true, predicted = [video.true for video in videos], [video.predicted for video in videos]
    at = np.linspace(min(predicted), max(predicted), _CURVE_POINTS)
    curve = fitted_curve(true, predicted, at)
    chart = Chart(
        "Predicted and true scores",
        Axis.around(f"predicted {label}", predicted),
        Axis.around(f"true {label}", true if curve is None else [*true, *curve.values.tolist()]),
        height=440,
    )
    if curve is not None:  # below the dots, which would be hidden by it
        chart.band(at.tolist(), curve.low.tolist(), curve.high.tolist(), "95% confidence interval of the fit")
        chart.line(at.tolist(), curve.values.tolist(), "logistic fit", "fit")
    shown = _some(videos)
    for video in shown:
        tip = f"{video.video_id}\npredicted {video.predicted:.2f}, true {video.true:.2f}"
        chart.point(video.predicted, video.true, tip)
    fit = (
        "The line is the 4-parameter logistic fit, the band its pointwise 95% interval (100 bootstrap resamples of the "
        "videos)."
        if curve is not None
        else "No logistic can be fitted to them."
    )
    part = "" if len(shown) == len(videos) else f" {len(shown)} of {len(videos)} videos, drawn at random, are shown."
    return Figure(
        chart.title, chart.svg(), f"One dot per held-out video, predicted by regressors that never saw it. {fit}{part}"
    )


def training_curves(trained: TrainedModel) -> list[Figure]:
    """Return the training loss and the validation SRCC over the epochs, a line per split."""
    return [
        _curves(trained, "train_loss", "Training loss", "The dot marks the epoch that was kept."),
        _curves(trained, "validation_srcc", "Validation SRCC", "The epoch of the best validation is kept."),
    ]


def _curves(trained: TrainedModel, column: str, title: str, caption: str) -> Figure:
    values = [row[column] for row in trained.curves]
    last = max((row["epoch"] for row in trained.curves), default=1.0)
    chart = Chart(title, Axis("epoch", 0.8, last + 1.2), Axis.around(title, values), width=520, height=300)
    for number, name in enumerate(trained.splits):
        rows = [row for row in trained.curves if int(row["split"]) == number]
        epochs = [row["epoch"] + 1 for row in rows]
        kind = f"curve colour-{number % _SPLIT_COLOURS}"
        chart.line(epochs, [row[column] for row in rows], name, kind)
        for row in rows:
            if int(row["epoch"]) == trained.best_epochs[number] and math.isfinite(row[column]):
                tip = f"{name}, epoch {int(row['epoch']) + 1}: {row[column]:.4f}"
                chart.point(row["epoch"] + 1, row[column], tip, f"dot colour-{number % _SPLIT_COLOURS}", 4)
    return Figure(chart.title, chart.svg(), caption)


def residuals(videos: Sequence[HeldOutVideo], label: str) -> list[Figure]:
    """Return the residuals by resolution, frame rate and content."""
    by: tuple[tuple[str, Callable[[HeldOutVideo], str]], ...] = (
        ("resolution", lambda video: f"{video.row.width} x {video.row.height}" if video.row.width else "unknown"),
        ("frame rate", lambda video: f"{video.row.frame_rate:.4g}/s" if video.row.frame_rate else "unknown"),
        ("content", lambda video: video.group),
    )
    return [_residuals_by(name, key, videos, label) for name, key in by]


def _residuals_by(name: str, key: Callable[[HeldOutVideo], str], videos: Sequence[HeldOutVideo], label: str) -> Figure:
    groups: dict[str, list[HeldOutVideo]] = defaultdict(list)
    for video in videos:
        groups[key(video)].append(video)
    spread = {group: abs(_mean_residual(those)) for group, those in groups.items()}
    shown = sorted(groups, key=lambda group: spread[group], reverse=True)[:_MOST_GROUPS]
    names = sorted(shown, key=lambda group: _mean_residual(groups[group]))
    chart = Chart(
        f"Residuals by {name}",
        Axis.around(f"predicted - true {label}", [0.0, *(video.residual for video in videos)]),
        Axis("", -0.6, len(names) - 0.4),
        height=70 + 24 * len(names),
        margins=Margins(left=200),
        names=names,
    )
    chart.line([0, 0], [-0.6, len(names) - 0.4], "", "zero")
    for row, group in enumerate(names):
        for video in _some(groups[group]):
            chart.point(video.residual, row, f"{video.video_id}\n{video.residual:+.2f}", "point faint", 3)
        mean = _mean_residual(groups[group])
        chart.point(mean, row, f"{group}\nmean {mean:+.2f} over {len(groups[group])} videos", "mean", 5)
    more = f" The {len(names)} of {len(groups)} with the largest means." if len(groups) > len(names) else ""
    return Figure(chart.title, chart.svg(), f"A faint dot per video, a full one for the mean.{more}")


def timeline(title: str, predicted: VideoScore, times: Sequence[float], label: str) -> Markup:
    """Return the quality of each sampled frame of a video, over bars for its weight."""
    qualities, weights = predicted.frame_quality.tolist(), predicted.frame_weight.tolist()
    chart = Chart(
        title,
        Axis.around("seconds", times, 0.08),
        Axis.around(label, [*qualities, predicted.score], 0.15),
        width=420,
        height=170,
        margins=Margins(left=62, bottom=36),
    )
    heaviest = max(weights, default=1.0) or 1.0
    for time, weight in zip(times, weights, strict=True):
        chart.bar(time, 0.45 * weight / heaviest, 10, f"{time:.2f} s\nweight {weight:.3f}")
    chart.line(times, qualities, "", "line")
    for time, quality, weight in zip(times, qualities, weights, strict=True):
        chart.point(time, quality, f"{time:.2f} s\nquality {quality:.2f}, weight {weight:.3f}", "point", 3)
    return chart.svg()


def _some(videos: Sequence[HeldOutVideo]) -> Sequence[HeldOutVideo]:
    if len(videos) <= _MOST_POINTS:
        return videos
    chosen = np.random.default_rng(0).choice(len(videos), _MOST_POINTS, replace=False)
    return [videos[number] for number in sorted(chosen.tolist())]


def _mean_residual(videos: Sequence[HeldOutVideo]) -> float:
    return sum(video.residual for video in videos) / len(videos)
