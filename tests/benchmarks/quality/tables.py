"""The tables, as text and as Markdown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from diffvqa.stages._bootstrap import bootstrap_intervals
from diffvqa.stages._metrics import correlation_metrics, spearman_correlation

from .differences import Difference, pairs_among, plcc_difference, srcc_difference
from .photographs import Photograph
from .rows import Row
from .severity import Decline

_REGRESSORS = {"svr": "SVR", "own": "ours"}


@dataclass(frozen=True)
class Judged:
    """A row with its figures on the test part.

    Attributes:
        row: The row.
        predictions: By photograph.
        photographs: Of the row.
        seconds: CPU seconds of the networks per photograph; NaN where unknown.
    """

    row: Row
    predictions: Mapping[str, float]
    photographs: Sequence[Photograph]
    seconds: float

    def cells(self) -> list[str]:
        """Return the cells of the row in :func:`quality_table`."""
        tested = [each for each in self.photographs if each.name in self.predictions]
        true, predicted = _vectors(tested, self.predictions)
        figures, intervals = correlation_metrics(true, predicted), bootstrap_intervals(true, predicted)
        spans = {name: f"{intervals[name].low:.3f} to {intervals[name].high:.3f}" for name in ("srcc", "plcc")}
        by_source = [
            spearman_correlation(*_vectors([each for each in tested if each.source == source], self.predictions))
            for source in ("ss01", "ss02", "ss03")
        ]
        return [
            self.row.name,
            _REGRESSORS[self.row.regressor],
            f"{figures.srcc:.3f}",
            spans["srcc"],
            f"{figures.plcc:.3f}",
            spans["plcc"],
            *(f"{value:.3f}" for value in by_source),
            str(sum(each.part != "test" for each in self.photographs)),
            f"{1000 * self.seconds:.0f} ms" if self.seconds > 0 and not self.row.is_brisque else "",
        ]


def quality_table(judged: Sequence[Judged]) -> Table:
    """Return the table of the rows."""
    table = Table(title="quality of photographs: test part, against mean opinion scores", title_justify="left")
    for heading in ("features", "regressor"):
        table.add_column(heading)
    for heading in ("SROCC", "95 %", "PLCC", "95 %", "ss01", "ss02", "ss03", "learned from", "CPU"):
        table.add_column(heading, justify="right")
    for each in judged:
        table.add_row(*each.cells())
    return table


def differences_table(judged: Sequence[Judged]) -> Table:
    """Return the table of how far those rows are apart that are to be compared; without lines where there are none."""
    table = Table(title="differences on the same photographs of the test part", title_justify="left")
    for heading in ("features", "against", "regressor"):
        table.add_column(heading)
    for heading in ("SROCC", "95 %", "PLCC", "95 %"):
        table.add_column(heading, justify="right")
    by_row = {each.row.key: each for each in judged}
    for row, against in pairs_among([each.row for each in judged]):
        one, other = by_row[row.key], by_row[against.key]
        tested = [each for each in one.photographs if each.name in one.predictions]
        true, predicted = _vectors(tested, one.predictions)
        _, reference = _vectors(tested, other.predictions)
        ranks, values = srcc_difference(true, predicted, reference), plcc_difference(true, predicted, reference)
        table.add_row(row.name, against.name, _REGRESSORS[row.regressor], *_told(ranks), *_told(values))
    return table


def severity_table(declines: Sequence[Decline]) -> Table:
    """Return the table of how scores fall with the severity."""
    contents = len(declines[0].correlations)
    table = Table(
        title=f"{contents} photographs made worse in five steps: rank correlation with severity and mean score"
    )
    for heading in ("distortion", "mean correlation", "least", "as it is", "1", "2", "3", "4", "5"):
        table.add_column(heading, justify="left" if heading == "distortion" else "right")
    for each in declines:
        table.add_row(
            each.distortion,
            f"{np.mean(each.correlations):.3f}",
            f"{min(each.correlations):.3f}",
            *(f"{score:.3f}" for score in each.mean_scores),
        )
    return table


def as_markdown(table: Table) -> str:
    """Return a table of plain cells as Markdown."""
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    headings = [str(column.header) for column in table.columns]
    marks = ["--:" if column.justify == "right" else "---" for column in table.columns]
    rows = zip(
        *([console.render_str(str(cell)).plain for cell in column.cells] for column in table.columns), strict=True
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, marks, *rows)) + "\n"


def _vectors(photographs: Sequence[Photograph], predictions: Mapping[str, float]) -> tuple[list[float], list[float]]:
    return [each.score for each in photographs], [predictions[each.name] for each in photographs]


def _told(difference: Difference) -> tuple[str, str]:
    return f"{difference.value:+.3f}", f"{difference.interval.low:+.3f} to {difference.interval.high:+.3f}"
