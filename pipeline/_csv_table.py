"""Reading the CSV files that users write: a header, one row per video, every complaint with its line."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import DatasetError


@dataclass(frozen=True)
class CsvTable:
    """A CSV file's content.

    Attributes:
        path: The file.
        columns: The cells of each column by its name, in order, blank lines left out; all have one length.
        lines: The line that each row ends on, counted from 1.
        delimiter: What parted the cells.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    delimiter: str = ","

    def where(self, row: int, column: str = "") -> str:
        """Return where a row (counted from 0) stands, for a message."""
        return f"{self.path}, line {self.lines[row]}" + (f", column '{column}'" if column else "")


def read_csv_table(path: Path, *, delimiters: str = ",", header: Sequence[str] | None = None) -> CsvTable:
    """Read a CSV file, UTF-8 with or without a byte order mark.

    Args:
        path: The file; it must exist.
        delimiters: The characters that may part the cells; with several, the header decides, a comma when it has none.
        header: Names of the columns of a file whose first line is a row already; None when its first line names them.

    Raises:
        DatasetError: The file is unreadable, not UTF-8, empty, not CSV, has a column twice, or a row is longer or
            shorter than the header.
    """
    text = read_text(path)
    delimiter = _delimiter(text, delimiters)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = tuple(name.strip() for name in next(filter(any, reader), [])) if header is None else tuple(header)
        _check_header(path, columns)
        lines: list[int] = []
        rows = list(_rows(path, len(columns), reader, lines))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.", "Check the quotation marks.") from error
    cells = zip(*rows, strict=True) if rows else (() for _ in columns)
    return CsvTable(path, dict(zip(columns, cells, strict=True)), tuple(lines), delimiter)


def read_text(path: Path) -> str:
    """Return the content of a text file, UTF-8 with or without a byte order mark, line ends as they are.

    Raises:
        DatasetError: The file is unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error


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


def _rows(path: Path, width: int, reader: Iterator[list[str]], lines: list[int]) -> Iterator[tuple[str, ...]]:
    for cells in reader:
        if not "".join(cells).strip():
            continue
        line: int = reader.line_num  # type: ignore[attr-defined]  # the type of csv.reader has no public name
        if len(cells) != width:
            raise DatasetError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {width}.",
                "Put cells that hold the delimiter in double quotation marks.",
            )
        lines.append(line)
        yield tuple(cells)  # unlike lists, the garbage collector soon forgets tuples of texts
