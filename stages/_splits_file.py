"""Splits as a file: a CSV table with one row per video and one column per split.

    video_id,split-0,split-1
    a.mp4,train,test
    b.mp4,validation,train
    c.mp4,test,

A cell says which part of that split the video is in; an empty one leaves it out of that split. A video that no split is
to use has a row with empty cells, so that a video that was forgotten is found.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._splits import PARTS, Part, Split, first_of, require_all_parts, warn_of_shared_contents

logger = logging.getLogger(__name__)

_ID_COLUMN = "video_id"
_FORMAT_HINT = f"Its columns are {_ID_COLUMN} and one per split, its cells {', '.join(PARTS)} or empty."


@dataclass(frozen=True)
class SplitsFile:
    """Splits as read from a file.

    Attributes:
        path: The file.
        video_ids: Every video it names, in its order.
        splits: Its splits; a column's name is the split's.
    """

    path: Path
    video_ids: tuple[str, ...]
    splits: tuple[Split, ...]

    def fit(self, groups: Mapping[str, str], known: Collection[str] = ()) -> tuple[Split, ...]:
        """Return the splits of the videos that there are.

        A video of the data set that cannot be used now, because its features failed say, is left out with a warning; it
        moves no other. A content group in several parts of a split is warned of.

        Args:
            groups: The content group of each video id that can be used.
            known: Ids of the data set's other videos.

        Raises:
            TrainingDataError: The file names a video that the data set does not have, lacks one that can be used, or a
                part is left empty.
        """
        unknown = set(self.video_ids).difference(groups, known)
        if unknown:
            raise TrainingDataError(
                f"{self.path} names {len(unknown)} video(s) that the data set does not have: {first_of(unknown)}.",
                "Give the splits of this data set, or remove those rows.",
            )
        missing = set(groups).difference(self.video_ids)
        if missing:
            raise TrainingDataError(
                f"{self.path} does not name {len(missing)} video(s) of the data set: {first_of(missing)}.",
                "Add a row for each; empty cells leave a video out.",
            )
        unusable = set(self.video_ids).difference(groups)
        if unusable:
            logger.warning(
                "%d video(s) of %s have no score or features and are left out: %s",
                len(unusable),
                self.path,
                first_of(unusable),
            )
        splits = tuple(_without(split, unusable) for split in self.splits)
        for split in splits:
            require_all_parts(split, f"Change its column in {self.path}.")
            warn_of_shared_contents(split, groups)
        return splits


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write ``splits`` in one step; :func:`read_splits` gives them back.

    Args:
        path: The file; its folder is made if absent.
        splits: Their names differ; their indices count from 0.

    Raises:
        OutputError: It cannot be written.
    """
    cells: dict[str, list[str]] = {}
    for column, split in enumerate(splits):
        for part, ids in split.parts():
            for video_id in ids:
                cells.setdefault(video_id, [""] * len(splits))[column] = part
    buffer = io.StringIO(newline="")
    # The default line ending, CR LF, makes the writer put ids with either of the two in quotation marks.
    writer = csv.writer(buffer)
    writer.writerow((_ID_COLUMN, *(split.name for split in splits)))
    writer.writerows((video_id, *cells[video_id]) for video_id in sorted(cells))
    atomic_write_text(path, buffer.getvalue())


def read_splits(path: Path) -> SplitsFile:
    """Read a file of splits, UTF-8 with or without a byte order mark.

    Raises:
        TrainingDataError: It is missing, no such table, names a video or a split twice, or a cell names no part; the
            message gives the line and the column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    parts: list[dict[str, Part]] = []
    lines: dict[str, int] = {}
    try:
        names = _read_header(path, [cell.strip() for cell in next(reader, [])])
        parts = [{} for _ in names]
        for cells in reader:
            if not any(cells):
                continue
            _check_row(path, reader.line_num, cells, names, lines)
            for column, cell in enumerate(cells[1:]):
                part = _read_part(path, reader.line_num, names[column], cell)
                if part:
                    parts[column][cells[0]] = part
    except csv.Error as error:
        raise TrainingDataError(f"{path}, line {reader.line_num}: {error}.", _FORMAT_HINT) from error
    splits = (_split_of(names[index], index, by_id) for index, by_id in enumerate(parts))
    return SplitsFile(path, tuple(lines), tuple(splits))


def _read_header(path: Path, columns: Sequence[str]) -> Sequence[str]:
    names = columns[1:]
    if not names or columns[0] != _ID_COLUMN or not all(names):
        raise TrainingDataError(f"{path} is no table of splits: its first line is '{','.join(columns)}'.", _FORMAT_HINT)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TrainingDataError(f"{path}, line 1: split '{repeated[0]}' is there twice.", "Rename or remove one.")
    return names


def _check_row(path: Path, line: int, cells: Sequence[str], names: Sequence[str], lines: dict[str, int]) -> None:
    if len(cells) != len(names) + 1:
        raise TrainingDataError(
            f"{path}, line {line}: {len(cells)} cells, but the header has {len(names) + 1}.", _FORMAT_HINT
        )
    if not cells[0].strip():
        raise TrainingDataError(f"{path}, line {line}: the video id is empty.", "Name the video.")
    first_line = lines.setdefault(cells[0], line)
    if first_line != line:
        raise TrainingDataError(
            f"{path}, line {line}: '{cells[0]}' is already on line {first_line}.", "Remove one of the two."
        )


def _read_part(path: Path, line: int, name: str, cell: str) -> Part | None:
    stripped = cell.strip()
    if not stripped:
        return None
    for part in PARTS:
        if stripped == part:
            return part
    raise TrainingDataError(f"{path}, line {line}, column '{name}': there is no part '{stripped}'.", _FORMAT_HINT)


def _split_of(name: str, index: int, parts: Mapping[str, Part]) -> Split:
    train, validation, test = (
        tuple(sorted(video_id for video_id, chosen in parts.items() if chosen == part)) for part in PARTS
    )
    return Split(train, validation, test, index, name)


def _without(split: Split, unusable: Collection[str]) -> Split:
    if not unusable:
        return split
    train, validation, test = (
        tuple(video_id for video_id in ids if video_id not in unusable) for _part, ids in split.parts()
    )
    return replace(split, train=train, validation=validation, test=test)
