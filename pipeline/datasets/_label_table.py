"""Reading the label files that people have, whatever their format, as a table of texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._csv_table import parse_score, read_csv_table, read_text
from diffvqa.pipeline._errors import DatasetError

_DELIMITERS = ",;\t"
_UNKNOWN_WITHOUT_HEADER = -1.0
_SECONDS_FOR_MATLAB = 120.0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0"
_SAVE_AS_CSV = "Open it in a spreadsheet program and save the sheet with the scores as CSV (UTF-8)."


@dataclass(frozen=True)
class LabelTable:
    """A label file's content.

    Attributes:
        path: The file.
        columns: The entries of each column by its name; those of a CSV file have one length, those of a MATLAB file
            need not. A file without a header has the columns ``path``, ``column 2`` and so on, and ``mos``.
        lines: The line of each entry; None for a MATLAB file, which has none.
        decimal_comma: Whether its numbers may be written with a comma.
        unknown: The number that stands for an unknown score; None when there is none.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int] | None = None
    decimal_comma: bool = False
    unknown: float | None = None

    def where(self, row: int) -> str:
        """Return where an entry (counted from 0) stands, for a message."""
        return f"{self.path}, " + (f"entry {row + 1}" if self.lines is None else f"line {self.lines[row]}")

    def score(self, text: str) -> float | None:
        """Return the finite number that an entry spells, or None when it spells none or an unknown one."""
        score = parse_score(text.replace(",", ".") if self.decimal_comma else text)
        return None if score == self.unknown else score


def read_label_table(path: Path) -> LabelTable:
    """Read a CSV file with a header, a text file without one, or a MATLAB file of version 5 or 7.3.

    What a file is follows from its content, not from its name.

    Raises:
        DatasetError: It is missing, damaged, empty, a spreadsheet or of no such format; the message names it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    if start.startswith((_ZIP_SIGNATURE, _OLE_SIGNATURE)):
        raise DatasetError(f"{path} is a spreadsheet or an archive, not a label file.", _SAVE_AS_CSV)
    if start.startswith(b"MATLAB") or _HDF5_SIGNATURE in start or path.suffix.lower() == ".mat":
        return LabelTable(path, _read_matlab(path))
    return _read_text_table(path)


def _read_text_table(path: Path) -> LabelTable:
    first_line = next((line for line in read_text(path).splitlines() if line.strip()), "")
    cells = first_line.split(",")
    header = None
    if len(cells) > 1 and parse_score(cells[0]) is None and parse_score(cells[-1]) is not None:
        header = ["path", *(f"column {number}" for number in range(2, len(cells))), "mos"]
    table = read_csv_table(path, delimiters="," if header else _DELIMITERS, header=header)
    unknown = _UNKNOWN_WITHOUT_HEADER if header else None
    return LabelTable(path, table.columns, table.lines, decimal_comma=table.delimiter != ",", unknown=unknown)


def _read_matlab(path: Path) -> Mapping[str, Sequence[str]]:
    # As a file rather than a module, so that it starts without this package; -P keeps its folder off the search path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("_mat_columns.py")), str(path.absolute())]
    # One thread each: with one per core, the libraries would reserve more memory than the program may have.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS_FOR_MATLAB, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise _damaged(path, f"reading it took more than {_SECONDS_FOR_MATLAB:.0f} s") from error
    except OSError as error:
        raise _damaged(path, f"{error.strerror or error}") from error
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        raise _damaged(path, f"reading it ended with status {done.returncode}") from error
    if "error" in result:
        raise _damaged(path, str(result["error"]).splitlines()[0])
    columns: dict[str, list[str]] = result["columns"]
    return columns


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path} cannot be read as a MATLAB file: {reason.rstrip('.')}.", "Get it again, or use a CSV.")
