"""The manifest: which videos a data set has, where they lie, and their scores where there are any.

A prepared data set is a folder with ``manifest.csv``, one row per video, and ``dataset.json``, which says what the
scores are and how the list came about. A manifest written by hand may leave out ``dataset.json`` and the columns
``score`` and ``group``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffvqa.cache.atomic import atomic_write_text
from diffvqa.pipeline.csv_table import CsvRow, CsvTable, parse_score, read_csv_table
from diffvqa.pipeline.errors import DatasetError

MANIFEST_FILE = "manifest.csv"
DATASET_FILE = "dataset.json"
_COLUMNS = ("video_id", "path", "score", "group")
_REQUIRED_COLUMNS = ("video_id", "path")
_FORMAT = 1


@dataclass(frozen=True)
class ManifestRow:
    """One video.

    Attributes:
        video_id: Names the video everywhere; unique in its data set, not blank.
        path: The file; it need not exist, extraction reports those that do not.
        score: Its quality, finite, in the data set's own scale, higher is better; None when unlabelled.
        group: Videos of one group (the same content, say) never fall on both sides of a split.
    """

    video_id: str
    path: Path
    score: float | None
    group: str


@dataclass(frozen=True)
class Label:
    """What the scores of a data set are.

    Attributes:
        name: Such as ``MOS`` or ``VMAF``.
        note: What a reader of results must know about them; empty for a plain MOS.
    """

    name: str = "MOS"
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass(frozen=True)
class MatchReport:
    """How labels and videos fitted together, in both directions.

    Attributes:
        matched: Number of labels whose video is there.
        labels_without_video: Names, as the label file gives them, of labels whose video is not there.
        videos_without_label: Ids of the videos that no label names.
    """

    matched: int = 0
    labels_without_video: tuple[str, ...] = ()
    videos_without_label: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The videos of a data set.

    Attributes:
        name: The data set's name.
        rows: Its videos, each id once, in the order they are listed.
        label: What the scores are.

    Raises:
        DatasetError: An id is blank or there twice, or a score is not finite.
    """

    name: str
    rows: tuple[ManifestRow, ...]
    label: Label = field(default_factory=Label)

    def __post_init__(self) -> None:
        repeated = [video_id for video_id, count in Counter(row.video_id for row in self.rows).items() if count > 1]
        if repeated:
            raise DatasetError(f"Data set '{self.name}' has the video '{repeated[0]}' twice.", "Each needs its own id.")
        for row in self.rows:
            if not row.video_id.strip():
                raise DatasetError(f"Data set '{self.name}': the video {row.path} has a blank id.", "Give it a name.")
            if row.score is not None and not math.isfinite(row.score):
                raise DatasetError(
                    f"Data set '{self.name}': the score of '{row.video_id}' is {row.score}.",
                    "Give a finite number, or none for an unlabelled video.",
                )


def write_manifest(folder: Path, manifest: Manifest, *, recipe: str = "", report: MatchReport | None = None) -> None:
    """Write ``manifest.csv`` and ``dataset.json`` into ``folder``, each in one step.

    Paths inside ``folder`` are stored relative to it, so it can be moved as a whole; others are stored absolute.

    Args:
        folder: The prepared data set; made if absent.
        manifest: Its videos.
        recipe: Name of the recipe that made the list.
        report: What the recipe found out about labels and videos.

    Raises:
        OutputError: The folder cannot be written to.
    """
    buffer = io.StringIO(newline="")
    # The default line ending, CR LF, makes the writer put cells with either of the two in quotation marks.
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for row in manifest.rows:
        score = "" if row.score is None else repr(float(row.score))
        writer.writerow((row.video_id, _stored_path(row.path, folder), score, row.group))
    description = {
        "format": _FORMAT,
        "name": manifest.name,
        "label": asdict(manifest.label),
        "recipe": recipe,
        "counts": {
            "videos": len(manifest.rows),
            "labelled": sum(row.score is not None for row in manifest.rows),
            "groups": len({row.group for row in manifest.rows}),
        },
        "report": None if report is None else asdict(report),
    }
    atomic_write_text(folder / MANIFEST_FILE, buffer.getvalue())
    atomic_write_text(folder / DATASET_FILE, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read a prepared data set.

    Args:
        folder: Holds ``manifest.csv`` and, unless that was written by hand, ``dataset.json``.

    Returns:
        The manifest; relative paths in it are taken from ``folder``. Without ``dataset.json`` the data set is named
        after the folder and its scores count as MOS.

    Raises:
        DatasetError: A file is missing or malformed; the message names the file, the line and the column.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DatasetError(
            f"{folder} holds no prepared data set: there is no {MANIFEST_FILE}.", "Run `diffvqa prepare` first."
        )
    table = read_csv_table(path)
    for column in _REQUIRED_COLUMNS:
        if column not in table.columns:
            raise DatasetError(
                f"{path}, line 1: column '{column}' is missing; it has: {', '.join(table.columns)}.",
                f"The columns are {', '.join(_COLUMNS)}; the last two may be left out.",
            )
    _check_ids(table)
    name, label = _read_description(folder)
    return Manifest(name, tuple(_parse_row(path, row, folder) for row in table.rows), label)


def _check_ids(table: CsvTable) -> None:
    first_lines: dict[str, int] = {}
    for row in table.rows:
        video_id = row.cells["video_id"]
        if not video_id.strip():
            raise DatasetError(
                f"{table.path}, line {row.line}, column 'video_id': the id is empty.",
                "Give the video a name of its own.",
            )
        first_line = first_lines.setdefault(video_id, row.line)
        if first_line != row.line:
            raise DatasetError(
                f"{table.path}, line {row.line}, column 'video_id': '{video_id}' is already on line {first_line}.",
                "Remove one of the two, or give it an id of its own.",
            )


def _parse_row(file: Path, row: CsvRow, folder: Path) -> ManifestRow:
    video_id, stored_path = row.cells["video_id"], row.cells["path"]
    if not stored_path.strip():
        raise DatasetError(f"{file}, line {row.line}, column 'path': it is empty.", "Give the path of the video file.")
    stored_score = row.cells.get("score", "").strip()
    score = parse_score(stored_score)
    if stored_score and score is None:
        raise DatasetError(
            f"{file}, line {row.line}, column 'score': '{stored_score}' is no number.",
            "Give a finite number, or leave the cell empty for an unlabelled video.",
        )
    return ManifestRow(video_id, folder / stored_path, score, row.cells.get("group", "") or video_id)


def _read_description(folder: Path) -> tuple[str, Label]:
    path = folder / DATASET_FILE
    default_name = folder.resolve().name
    if not path.is_file():
        return default_name, Label()
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stored_format = description["format"]
        if stored_format > _FORMAT:
            raise DatasetError(f"{path} was written by a newer version (format {stored_format}).", "Update diffvqa.")
        return str(description["name"]), Label(str(description["label"]["name"]), str(description["label"]["note"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error or type(error).__name__}.", "Run `diffvqa prepare` again, or remove the file."
        ) from error


def _stored_path(path: Path, folder: Path) -> str:
    # Lexical on purpose: links inside the folder are kept as they are named.
    absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() follows links
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else absolute.as_posix()
