"""One table as text, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.pipeline._errors import ConfigError

_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
    }
)


@dataclass(frozen=True)
class PlainTable:
    """Cells as text, below one or several rows of headings.

    Attributes:
        headings: From the top; where neighbours in one row are equal, they are one heading over several columns. The
            first column names the rows.
        rows: As many cells each as a row of headings has.
    """

    headings: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]

    def to_text(self) -> str:
        """Return the table in columns, for a terminal."""
        lines = (*self.headings, *self.rows)
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headings[0]))]
        rendered = [_spanned(line, widths) for line in self.headings]
        rendered.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
        rendered += [
            "  ".join(_aligned(cell, width, n) for n, (cell, width) in enumerate(zip(row, widths, strict=True)))
            for row in self.rows
        ]
        return "\n".join(line.rstrip() for line in rendered) + "\n"

    def to_csv(self) -> str:
        """Return the table as CSV with one heading per column."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self._joined_headings())
        writer.writerows(self.rows)
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, with one heading per column."""
        ruler = ("---", *("---:" for _ in self.headings[0][1:]))
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in (self._joined_headings(), ruler, *self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def to_latex(self) -> str:
        """Return the table as a LaTeX ``tabular`` for the package booktabs, headings over several columns and all."""
        lines = [rf"\begin{{tabular}}{{l{'c' * (len(self.headings[0]) - 1)}}}", r"\toprule"]
        for number, heading in enumerate(self.headings):
            cells, rules, column = [], [], 1
            for text, same in groupby(heading):
                span = len(list(same))
                cells.append(
                    text.translate(_LATEX) if span == 1 else rf"\multicolumn{{{span}}}{{c}}{{{text.translate(_LATEX)}}}"
                )
                if span > 1:
                    rules.append(rf"\cmidrule(lr){{{column}-{column + span - 1}}}")
                column += span
            lines.append(" & ".join(cells) + r" \\")
            if rules and number < len(self.headings) - 1:
                lines.append(" ".join(rules))
        body = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in self.rows]
        return "\n".join([*lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def write(self, path: Path) -> None:
        """Write the table in the format that the file's suffix names: .txt, .csv, .md or .tex.

        Raises:
            ConfigError: It names none of them.
            OutputError: The file cannot be written.
        """
        formats = {".txt": self.to_text, ".csv": self.to_csv, ".md": self.to_markdown, ".tex": self.to_latex}
        if path.suffix.lower() not in formats:
            raise ConfigError(f"{path}: no table is written as '{path.suffix}'.", f"Use one of: {', '.join(formats)}.")
        atomic_write_text(path, formats[path.suffix.lower()]())

    def _joined_headings(self) -> tuple[str, ...]:
        """One heading per column: its own below those that span it."""
        return tuple(" / ".join(dict.fromkeys(filter(None, column))) for column in zip(*self.headings, strict=True))


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _spanned(heading: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for _, columns in groupby(range(len(heading)), key=lambda column: heading[column]):
        spanned = list(columns)
        width = sum(widths[column] for column in spanned) + 2 * (len(spanned) - 1)
        text = heading[spanned[0]]
        parts.append(text.center(width) if len(spanned) > 1 else _aligned(text, width, spanned[0]))
    return "  ".join(parts)
