"""Reading the small CSV files that users write: a header, one row per video, every complaint with its line."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline.errors import DatasetError


@dataclass(frozen=True)
class CsvRow:
    """One row.

    Attributes:
        line: The line it ends on, counted from 1.
        cells: The text of each cell by its column's name.
    """

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class CsvTable:
    """A CSV file's content.

    Attributes:
        path: The file.
        columns: The names in its header, in order.
        rows: Its rows, blank lines left out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv_table(path: Path, *, delimiters: str = ",") -> CsvTable:
    """Read a CSV file, UTF-8 with or without a byte order mark.

    Args:
        path: The file; it must exist.
        delimiters: The characters that may part the cells; with several, the header decides, a comma when it has none.

    Raises:
        DatasetError: The file is unreadable, not UTF-8, empty, not CSV, has a column twice, or a row is longer or
            shorter than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, delimiters))
    try:
        columns = tuple(name.strip() for name in next(filter(any, reader), []))
        _check_header(path, columns)
        return CsvTable(path, columns, tuple(_rows(path, columns, reader)))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.", "Check the quotation marks.") from error


def parse_score(text: str) -> float | None:
    """Return the finite number that ``text`` spells, or None when it spells none."""
    try:
        score = float(text)
    except ValueError:
        return None
    return score if math.isfinite(score) else None


def _delimiter(text: str, delimiters: str) -> str:
    if len(delimiters) == 1:
        return delimiters
    # Only the header is shown to the sniffer: the rows hold decimal commas and file names that lead it astray.
    header = text.lstrip().partition("\n")[0]
    try:
        return csv.Sniffer().sniff(header, delimiters).delimiter
    except csv.Error:
        return ","


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    if not any(columns):
        raise DatasetError(f"{path} is empty.", "Its first line must name the columns.")
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DatasetError(f"{path}, line 1: column '{repeated[0]}' is there twice.", "Rename or remove one.")


def _rows(path: Path, columns: tuple[str, ...], reader: Iterator[list[str]]) -> Iterator[CsvRow]:
    for cells in reader:
        line: int = reader.line_num  # type: ignore[attr-defined]  # the type of csv.reader has no public name
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise DatasetError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(columns)}.",
                "Put cells that hold the delimiter in double quotation marks.",
            )
        yield CsvRow(line, dict(zip(columns, cells, strict=True)))
