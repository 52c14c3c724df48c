"""From the label files of a published data set to the labels of its videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Label, MatchReport
from diffvqa.pipeline.datasets._catalogue import VideoLabel
from diffvqa.pipeline.datasets._label_search import FoundLabels
from diffvqa.pipeline.datasets._published import PublishedDataset

_LEAST_SPREAD = 0.1  # of the scale; no published data set has less than half
_ENOUGH_TO_JUDGE = 20


@dataclass(frozen=True)
class PublishedLabels:
    """The labels of a data set.

    Attributes:
        rows: One per video, perhaps some twice.
        note: What a reader of results must know about the scores.
        notes: What the user should know about the files.
    """

    rows: tuple[VideoLabel, ...]
    note: str
    notes: tuple[str, ...]

    def describe_in(self, report: MatchReport, dataset: PublishedDataset, videos: int) -> MatchReport:
        """Return the report with what is known of the files, and of how many videos a release has.

        Args:
            report: How labels and videos fitted together.
            dataset: Whose labels they are.
            videos: How many videos are labelled.
        """
        known = "; ".join(f"{count} ({release})" for count, release in dataset.counts.items())
        expected = (
            f"{videos} labels, as in: {dataset.counts[videos]}"
            if videos in dataset.counts
            else f"{videos} labels, a number that no known release of {dataset.title} has; known are: {known}"
        )
        return replace(report, notes=(*report.notes, *self.notes, expected))


def read_published_labels(dataset: PublishedDataset, found: Sequence[FoundLabels]) -> PublishedLabels:
    """Read the labels of all files.

    A score that is missing, no number or off the scale counts as none. Scores that are all so small that they were
    divided by ``dataset.divided_by`` are multiplied again.

    Args:
        dataset: Whose labels they are.
        found: Its label files, at least one.

    Raises:
        DatasetError: A file holds no labels or none of the part to prepare, its columns differ in length, a video has
            no name, or most scores lie off the scale.
    """
    scale = Label("MOS", "", *dataset.scale)
    rows: list[VideoLabel] = []
    notes: list[str] = []
    factors = set()
    for labels in found:
        read = list(_read_rows(dataset, labels))
        if not read:
            raise _no_labels(dataset, labels)
        factor = _factor(dataset, read)
        scaled = [_on_scale(row, factor, scale) for row in read]
        _check_scale(labels, dataset, scale, read, scaled)
        notes.append(f"labels: {labels.table.path} ({labels.file.origin}, {len(read)} rows)")
        if factor != 1.0:
            notes.append(f"its scores were divided by {factor:g}; they are multiplied again")
        notes += _doubt_scale(dataset, scaled)
        factors.add(factor)
        rows += scaled
    covered = {part for labels in found for part in labels.file.parts()}
    missing = [part for part in dataset.wanted_parts if not covered & {"", part}]
    if missing:
        notes.append(f"no label file of the part {' or '.join(missing)} of the official split")
    note = "" if factors == {1.0} else "multiplied again: the label file had them divided"
    return PublishedLabels(tuple(rows), note, tuple(notes))


def _read_rows(dataset: PublishedDataset, labels: FoundLabels) -> Iterator[VideoLabel]:
    file, table = labels.file, labels.table
    names, scores = labels.column(file.video), labels.column(file.score)
    values = labels.column(file.split_column) if file.split_column else ("",) * len(names)
    if not len(names) == len(scores) == len(values):
        raise DatasetError(
            f"{table.path} is damaged: it has {len(names)} names, but {len(scores)} scores.", "Get it again."
        )
    for row, (name, text, value) in enumerate(zip(names, scores, values, strict=True)):
        part = _part(labels, row, value) if file.split_column else file.part
        if dataset.part and part not in ("", dataset.part):
            continue
        if not name.strip():
            if not text.strip():
                continue
            raise DatasetError(f"{table.where(row)}: the video has no name.", "Name it, or remove the row.")
        cell = dataset.cells.get(part, "")
        yield VideoLabel(table.where(row), name.strip(), table.score(text), split=cell)


def _part(labels: FoundLabels, row: int, value: str) -> str:
    for known, part in labels.file.split_values.items():
        if known.casefold() == value.strip().casefold():
            return part
    raise DatasetError(
        f"{labels.table.where(row)}, column '{labels.file.split_column}': '{value}' names no part of the split.",
        f"Known are: {', '.join(labels.file.split_values)}.",
    )


def _factor(dataset: PublishedDataset, rows: Sequence[VideoLabel]) -> float:
    highest = max((abs(row.score) for row in rows if row.score is not None), default=0.0)
    return dataset.divided_by if 0.0 < highest * dataset.divided_by <= dataset.scale[1] else 1.0


def _on_scale(row: VideoLabel, factor: float, scale: Label) -> VideoLabel:
    if row.score is None:
        return row
    score = row.score * factor
    return replace(row, score=score if scale.covers(score) else None)


def _check_scale(
    labels: FoundLabels,
    dataset: PublishedDataset,
    scale: Label,
    read: Sequence[VideoLabel],
    scaled: Sequence[VideoLabel],
) -> None:
    lost = [before for before, after in zip(read, scaled, strict=True) if after.score is None]
    if 2 * len(lost) > len(read):
        raise DatasetError(
            f"{labels.table.path}: {len(lost)} of {len(read)} scores are missing or lie off the scale of "
            f"{dataset.title}, {scale.lowest:g} to {scale.highest:g}, such as {lost[0].score} at {lost[0].where}.",
            "Give the scores as they were published, or prepare them with the recipe csv.",
        )


def _doubt_scale(dataset: PublishedDataset, rows: Sequence[VideoLabel]) -> list[str]:
    scores = [row.score for row in rows if row.score is not None]
    lowest, highest = dataset.scale
    if len(scores) < _ENOUGH_TO_JUDGE or max(scores) - min(scores) > _LEAST_SPREAD * (highest - lowest):
        return []
    return [f"its scores only span {min(scores):g} to {max(scores):g}: perhaps they are on another scale"]


def _no_labels(dataset: PublishedDataset, labels: FoundLabels) -> DatasetError:
    if dataset.part and labels.table.columns:
        return DatasetError(
            f"{labels.table.path} holds no labels for {dataset.title}.",
            "Give another file, or prepare the part that it holds; `diffvqa datasets` lists the recipes.",
        )
    return DatasetError(f"{labels.table.path} holds no labels.", "It needs one row per video.")
