"""The manifest: which videos a data set has, where they lie, and their scores where there are any.

A prepared data set is a folder with ``manifest.csv``, one row per video, and ``dataset.json``, which says what the
scores are and how the list came about. A manifest written by hand may leave out ``dataset.json`` and the columns
``score``, ``group`` and ``split``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.cache._source_files import is_url
from diffvqa.pipeline._csv_table import CsvTable, parse_score, read_csv_table
from diffvqa.pipeline._errors import DatasetError
from diffvqa.stages._splits import PARTS, Part

MANIFEST_FILE = "manifest.csv"
DATASET_FILE = "dataset.json"
_COLUMNS = ("video_id", "path", "score", "group", "split")
_REQUIRED_COLUMNS = ("video_id", "path")
_FORMAT = 1
_OFFICIAL = "official"  # name of a split that was given none


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One video.

    Attributes:
        video_id: Names the video everywhere; unique in its data set, not blank.
        location: Path or URL of the file; it need not exist, extraction reports those that do not.
        score: Its quality, finite, in the data set's own scale, higher is better; None when unlabelled.
        group: Videos of one group (the same content, say) never fall on both sides of a split.
        split: Its place in the data set's official split, ``train``, ``validation`` or ``test``; in several official
            splits with their names, such as ``easy=test;hard=train``; empty where there is none.
    """

    video_id: str
    location: str
    score: float | None
    group: str
    split: str = ""

    @property
    def path(self) -> Path:
        """The file, of a video that lies at no URL."""
        return Path(self.location)  # not before it is asked for: taking 100,000 paths apart takes a second


@dataclass(frozen=True)
class Label:
    """What the scores of a data set are.

    Attributes:
        name: Such as ``MOS`` or ``VMAF``.
        note: What a reader of results must know about them; empty for a plain MOS.
        lowest: Of the scale, the worst quality; None when unknown.
        highest: Of the scale, the best quality; None when unknown.
    """

    name: str = "MOS"
    note: str = ""
    lowest: float | None = None
    highest: float | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name

    def covers(self, score: float) -> bool:
        """Return whether a score lies on the scale, as far as that is known."""
        return (self.lowest is None or self.lowest <= score) and (self.highest is None or score <= self.highest)


@dataclass(frozen=True)
class MatchReport:
    """How labels and videos fitted together, in both directions.

    Attributes:
        matched: Number of labels whose video is there.
        labels_without_video: Names, as the label file gives them, of labels whose video is not there.
        videos_without_label: Ids of the videos that no label names.
        duplicates: Names that are labelled again with the same score; one of the two is kept.
        without_score: Names whose score is missing or lies off the scale; they are kept as unlabelled.
        notes: What else the user should know, such as a count that no known release has.
    """

    matched: int = 0
    labels_without_video: tuple[str, ...] = ()
    videos_without_label: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    without_score: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
                raise DatasetError(
                    f"Data set '{self.name}': the video {row.location} has a blank id.", "Give it a name."
                )
            if row.score is not None and not math.isfinite(row.score):
                raise DatasetError(
                    f"Data set '{self.name}': the score of '{row.video_id}' is {row.score}.",
                    "Give a finite number, or none for an unlabelled video.",
                )

    def official_splits(self) -> dict[str, dict[str, Part]]:
        """Return the official splits by name, each the part of every video id that it uses; empty if there are none.

        Raises:
            DatasetError: The ``split`` of a video is no such text.
        """
        splits: dict[str, dict[str, Part]] = {}
        parsed: dict[str, Mapping[str, Part]] = {}
        for row in self.rows:
            if row.split not in parsed:
                parsed[row.split] = parse_split(row.split, f"Data set '{self.name}', video '{row.video_id}'")
            for name, part in parsed[row.split].items():
                splits.setdefault(name, {})[row.video_id] = part
        return splits


def parse_split(text: str, where: str) -> dict[str, Part]:
    """Return the part in each official split that a cell of the column ``split`` names.

    Args:
        text: Such as ``train`` or ``easy=test;hard=train``; empty for none.
        where: The cell's file and line, for the message.

    Raises:
        DatasetError: It names no part, or a split twice.
    """
    parts: dict[str, Part] = {}
    for entry in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, chosen = entry.rpartition("=")
        name = name.strip() or _OFFICIAL
        part = next((part for part in PARTS if part == chosen.strip()), None)
        if part is None or name in parts:
            raise DatasetError(
                f"{where}: '{text}' names no part of a split.",
                f"Give one of {', '.join(PARTS)}, or several as NAME=PART;NAME=PART.",
            )
        parts[name] = part
    return parts


def write_manifest(folder: Path, manifest: Manifest, *, recipe: str = "", report: MatchReport | None = None) -> None:
    """Write ``manifest.csv`` and ``dataset.json`` into ``folder``, each in one step.

    Paths inside ``folder`` are stored relative to it, so it can be moved as a whole; others are stored absolute, and
    URLs as they are.

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
    base = os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118  # resolve() would follow links
    for row in manifest.rows:
        score = "" if row.score is None else repr(float(row.score))
        writer.writerow((row.video_id, _stored_path(row.location, base), score, row.group, row.split))
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
                f"The columns are {', '.join(_COLUMNS)}; the last three may be left out.",
            )
    _check_ids(table)
    name, label = _read_description(folder)
    return Manifest(name, tuple(_parse_rows(table, folder)), label)


def _check_ids(table: CsvTable) -> None:
    first_rows: dict[str, int] = {}
    for row, video_id in enumerate(table.columns["video_id"]):
        if not video_id.strip():
            raise DatasetError(f"{table.where(row, 'video_id')}: the id is empty.", "Give the video a name of its own.")
        first_row = first_rows.setdefault(video_id, row)
        if first_row != row:
            raise DatasetError(
                f"{table.where(row, 'video_id')}: '{video_id}' is already on line {table.lines[first_row]}.",
                "Remove one of the two, or give it an id of its own.",
            )


def _parse_rows(table: CsvTable, folder: Path) -> Iterator[ManifestRow]:
    ids = table.columns["video_id"]
    absent = ("",) * len(ids)
    groups = table.columns.get("group", absent)
    locations = _parse_locations(table, folder)
    scores = _parse_scores(table)
    splits = _parse_splits(table)
    for video_id, location, score, group, split in zip(ids, locations, scores, groups, splits, strict=True):
        yield ManifestRow(video_id, location, score, group or video_id, split)


def _parse_locations(table: CsvTable, folder: Path) -> Iterator[str]:
    base = str(folder)
    for row, stored in enumerate(table.columns["path"]):
        if not stored.strip():
            raise DatasetError(f"{table.where(row, 'path')}: it is empty.", "Give the path or URL of the video file.")
        stored = stored.removeprefix("file://")
        is_whole = stored.startswith("/") or is_url(stored)
        yield stored if is_whole else os.path.join(base, stored)  # noqa: PTH118  # a Path is taken apart


def _parse_scores(table: CsvTable) -> Iterator[float | None]:
    if "score" not in table.columns:
        yield from (None for _ in table.lines)
        return
    for row, stored in enumerate(table.columns["score"]):
        score = parse_score(stored)
        if score is None and stored.strip():
            raise DatasetError(
                f"{table.where(row, 'score')}: '{stored.strip()}' is no number.",
                "Give a finite number, or leave the cell empty for an unlabelled video.",
            )
        yield score


def _parse_splits(table: CsvTable) -> Sequence[str]:
    splits = table.columns.get("split")
    if splits is None:
        return ("",) * len(table.lines)
    for text in set(splits):
        parse_split(text, table.where(splits.index(text), "split"))
    return splits


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
        return str(description["name"]), _read_label(description["label"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error or type(error).__name__}.", "Run `diffvqa prepare` again, or remove the file."
        ) from error


def _read_label(stored: Mapping[str, Any]) -> Label:
    name, note = str(stored["name"]), str(stored["note"])
    lowest, highest = (None if stored.get(end) is None else float(stored[end]) for end in ("lowest", "highest"))
    return Label(name, note, lowest, highest)


def _stored_path(location: str, base: str) -> str:
    if is_url(location):
        return location
    # Lexical on purpose: links inside the folder are kept as they are named.
    absolute = os.path.abspath(location)  # noqa: PTH100
    return absolute.removeprefix(base).replace(os.sep, "/")
