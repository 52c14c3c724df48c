"""The page of a report: everything in one HTML file, which asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffvqa.pipeline._report.charts import residuals, scatter, training_curves
from diffvqa.pipeline._report.content import ReportContent, TrainedModel
from diffvqa.pipeline._report.highlights import highlights
from diffvqa.pipeline._report.monotonicity import SeverityStep, severity_steps
from diffvqa.stages._bootstrap import bootstrap_intervals

_FIGURES = ("srcc", "krcc", "plcc", "plcc_fitted", "rmse_fitted")
_HEADINGS = ("SRCC", "KRCC", "PLCC", "PLCC fitted", "RMSE fitted")
_MOST_FAILURES = 200


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        headings: One per column; the first column names the rows.
        rows: As many cells each.
        last_is_total: Whether the last row sums up the others.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    last_is_total: bool = False


def render(content: ReportContent) -> str:
    """Return the report as HTML.

    Raises:
        CacheError: Features of a video that is shown are damaged.
    """
    environment = Environment(
        loader=PackageLoader("diffvqa.pipeline._report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    trained = content.trained if content.trained is not None and content.trained.held_out else None
    return environment.get_template("report.html").render(
        content=content,
        version=version("diffvqa"),
        style=Markup(environment.get_template("report.css").render()),  # noqa: S704  # of the package itself
        script=Markup(script),  # noqa: S704  # likewise
        script_digest=digest,
        tiles=_tiles(content),
        failures=_failures(content),
        most_failures=_MOST_FAILURES,
        provenance=_provenance(content),
        **(_of_model(content, trained) if trained is not None else {"trained": None}),
    )


def _of_model(content: ReportContent, trained: TrainedModel) -> dict[str, Any]:
    label = content.manifest.label.name
    assert content.features is not None  # noqa: S101  # a model is only looked at where there are features
    return {
        "trained": trained,
        "scatter": scatter(trained.held_out, label),
        "pooled": _pooled(trained),
        "splits": _splits(trained),
        "curves": training_curves(trained),
        "residuals": residuals(trained.held_out, label),
        "highlights": highlights(trained, content.features, label),
        "ablation": _ablation(content.ablation),
        "evaluations": _evaluations(content.evaluations),
        "steps": _steps(content, trained),
    }


def _tiles(content: ReportContent) -> list[tuple[str, str]]:
    """Return the figures of the summary: value and what it is."""
    manifest = content.manifest
    tiles = [
        (str(len(manifest.rows)), "videos"),
        (str(sum(row.score is not None for row in manifest.rows)), f"with a {manifest.label.name}"),
        (str(len({row.group for row in manifest.rows})), "contents"),
        (str(len(content.failures)), "could not be used"),
    ]
    if content.trained is not None:
        median = content.trained.metrics["median"]
        tiles += [
            (_number(median[name]), f"{heading}, median")
            for name, heading in (("srcc", "SRCC"), ("plcc_fitted", "PLCC fitted"))
        ]
        tiles.append((str(len(content.trained.splits)), "splits"))
    return tiles


def _pooled(trained: TrainedModel) -> Table:
    """Return the figures over all held-out videos at once, with their intervals."""
    from diffvqa.stages._metrics import correlation_metrics

    true, predicted = ([getattr(video, name) for video in trained.held_out] for name in ("true", "predicted"))
    metrics, intervals = correlation_metrics(true, predicted), bootstrap_intervals(true, predicted)
    cells = (
        f"{_number(getattr(metrics, name))} [{_number(intervals[name].low)}, {_number(intervals[name].high)}]"
        for name in _FIGURES
    )
    return Table(("held-out videos", *_HEADINGS), ((str(metrics.n), *cells),))


def _splits(trained: TrainedModel) -> Table:
    rows = [
        (name, str(split["test"]["n"]), str(best + 1), *(_number(split["test"][figure]) for figure in _FIGURES))
        for name, split, best in zip(trained.splits, trained.metrics["splits"], trained.best_epochs, strict=True)
    ]
    median = trained.metrics["median"]
    rows.append(("median", str(median["n"]), "", *(_number(median[figure]) for figure in _FIGURES)))
    return Table(("split", "test videos", "epoch kept", *_HEADINGS), tuple(rows), last_is_total=True)


def _ablation(stored: Mapping[str, Any] | None) -> Table | None:
    if stored is None:
        return None
    rows = tuple(
        (
            row["variant"],
            *(_number(row["median"][figure]) for figure in _FIGURES),
            "" if row["variant"] == "full" else _number(row["difference"], "+.3f"),
        )
        for row in stored["rows"]
    )
    return Table(("regressor", *_HEADINGS, "SRCC minus full"), rows)


def _evaluations(stored: Sequence[Mapping[str, Any]]) -> Table | None:
    if not stored:
        return None
    rows = tuple(
        (
            "+".join(row["trained_on"]),
            row["on"],
            row["protocol"],
            str(row["n"]),
            *(_number(row[figure]) for figure in _FIGURES),
        )
        for row in stored
    )
    return Table(("trained on", "tested on", "protocol", "videos", *_HEADINGS), rows)


def _steps(content: ReportContent, trained: TrainedModel) -> dict[str, Any] | None:
    """Return the monotonicity table of a set with pristine versions, such as the demo's; None for others."""
    steps = severity_steps({video.video_id: (video.true, video.predicted) for video in trained.held_out})
    if not steps:
        return None
    headings = ("distortion", "step", "contents", "mean score", "change", "contents that fall")
    label = content.manifest.label.name
    table = Table((*headings, f"mean {label}", "holds"), tuple(map(_step_row, steps)))
    return {"table": table, "broken": sum(not step.holds for step in steps), "all": len(steps)}


def _step_row(step: SeverityStep) -> tuple[str, ...]:
    return (
        step.distortion,
        f"{step.milder} → {step.worse}",
        str(step.contents),
        f"{step.score_before:.2f} → {step.score_after:.2f}",
        f"{step.score_after - step.score_before:+.2f}",
        f"{step.falling} of {step.contents}",
        f"{step.label_before:.1f} → {step.label_after:.1f}",
        "yes" if step.holds else "no",
    )


def _failures(content: ReportContent) -> list[tuple[str, int]]:
    return Counter(row.reason for row in content.failures).most_common()


def _provenance(content: ReportContent) -> list[tuple[str, str]]:
    """Return what made all this, as titled texts."""
    parts = list(content.settings.items())
    parts = [(f"settings of the {title}", text) for title, text in parts]
    if content.features is not None:
        header = content.features.header
        parts.append(
            ("fingerprint of the features", _as_text({**header.fingerprint, "digest": header.fingerprint_digest}))
        )
        parts.append((f"software that made the features, {header.created}", _as_text(header.software)))
    if content.trained is not None:
        parts.append(("software that trained the model", _as_text(content.trained.software)))
    return parts


def _as_text(values: Mapping[str, object]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def _number(value: float | None, form: str = ".3f") -> str:
    return "nan" if value is None or math.isnan(value) else format(value, form)
