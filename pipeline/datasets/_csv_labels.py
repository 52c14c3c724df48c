"""The recipe ``csv``: videos below a directory or a URL, scores from a CSV file with a header."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from diffvqa.pipeline._csv_table import CsvTable, parse_score, read_csv_table
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, parse_split
from diffvqa.pipeline.datasets._catalogue import VideoCatalogue, VideoLabel, match_labels
from diffvqa.pipeline.datasets._folder import videos_below
from diffvqa.pipeline.datasets._recipe import ColumnNames, OnProgress, PreparedDataset, PrepareRequest, Recipe

DELIMITERS = ",;\t"
_NAMES_OF_A_MOS = frozenset({"mos", "score"})


def prepare_csv(request: PrepareRequest, on_progress: OnProgress) -> PreparedDataset:
    """Join the labels of ``request.labels`` to the videos below ``request.videos``, by name.

    A label names a video by its path from the directory, by its file name, or by either without the extension. The
    video's id is its path from the directory. A label whose video is not there stays in the manifest with the path
    where the video was expected; a video without a label does not come into it. Both are in the report.

    The scores count as MOS, unless their column was given another name: then they are called what the column is. Scores
    of which lower is better are turned round, and said to be.

    Raises:
        DatasetError: A column is missing, a score is not a finite number, a label fits several videos, a video is
            labelled with two scores, a split is malformed, or nothing fits at all.
    """
    place = request.require_videos()
    table = read_csv_table(request.require_labels(), delimiters=DELIMITERS)
    catalogue = VideoCatalogue.of(place, videos_below(place), _names_of)
    labels = _read_labels(table, request.columns, sign=-1 if request.lower_is_better else 1)
    matches, report = match_labels(
        labels,
        catalogue,
        name_of=str,
        id_of=lambda written, found: found or written,
        on_progress=on_progress,
        hint="Check --videos and --video-column.",
    )
    rows = tuple(
        ManifestRow(found.video_id, found.location, label.score, label.group or found.video_id, label.split)
        for found, label in ((match, match.label) for match in matches)
    )
    return PreparedDataset(Manifest(request.name, rows, _name_label(request)), report)


RECIPE = Recipe(
    name="csv",
    summary="Videos below a directory or URL, scores from a CSV file.",
    needs_videos=True,
    needs_labels=True,
    prepare=prepare_csv,
)


def _names_of(path: PurePosixPath) -> Iterable[str]:
    return (str(path), path.name, str(path.with_suffix("")), path.stem)


def _read_labels(table: CsvTable, columns: ColumnNames, *, sign: int) -> list[VideoLabel]:
    required = [("--video-column", columns.video), ("--score-column", columns.score)]
    defaults = ColumnNames()
    # A name of the user's own must be there, the default need not.
    required += [("--group-column", columns.group)] if columns.group != defaults.group else []
    required += [("--split-column", columns.split)] if columns.split != defaults.split else []
    for option, column in required:
        if column not in table.columns:
            raise DatasetError(
                f"{table.path} has no column '{column}'; it has: {', '.join(table.columns)}.",
                f"Say which one it is with {option}.",
            )
    if not table.lines:
        raise DatasetError(f"{table.path} holds no labels.", "Below the header it needs one row per video.")
    return [_read_label(table, row, columns, sign) for row in range(len(table.lines))]


def _read_label(table: CsvTable, row: int, columns: ColumnNames, sign: int) -> VideoLabel:
    def cell(column: str) -> str:
        return table.columns[column][row].strip() if column in table.columns else ""

    name, stored = cell(columns.video), table.columns[columns.score][row]
    if not name:
        raise DatasetError(f"{table.where(row, columns.video)}: the name is empty.", "Name the video.")
    score = parse_score(stored)
    if score is None:
        raise DatasetError(
            f"{table.where(row, columns.score)}: '{stored}' is no number.",
            "Give a finite number with a decimal point, or remove the row.",
        )
    split = cell(columns.split)
    parse_split(split, table.where(row, columns.split))
    return VideoLabel(table.where(row), name, sign * score, cell(columns.group), split)


def _name_label(request: PrepareRequest) -> Label:
    column = request.columns.score
    name = "MOS" if column.lower() in _NAMES_OF_A_MOS else column
    return Label(name, "turned round, higher is better" if request.lower_is_better else "")
