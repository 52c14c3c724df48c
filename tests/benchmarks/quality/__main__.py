"""The command line of the benchmark; see the package."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.pipeline._config import parse_assignment

from . import __doc__ as description
from .photographs import list_training_pictures, read_photographs
from .rows import Row, all_rows, chosen_rows
from .runner import Workplace, predictions_of
from .severity import clean_contents, measure
from .stand_in import write_stand_in
from .tables import Judged, as_markdown, differences_table, quality_table, severity_table

_SEVERITY = "severity"
_SCORES_WORSE = "nano/own"
_QUICK = {"train.epochs": 1, "extract.crops": 1, "extract.view_size": 32, "train.tcab_patch": 16}
_QUICK_ROWS = "brisque,nano,nano+efficientnet-lite0/svr,nano*Controller off/svr"


def main() -> None:
    """Make the rows that the command line asks for, and show them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=Path("../shared/data/photos"), metavar="FOLDER")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-quality"), metavar="FOLDER")
    parser.add_argument("--rows", default="", help="names or patterns, such as nano,*/svr,severity (default: all)")
    parser.add_argument("--take", type=int, help="photographs of the other rows (default: all)")
    parser.add_argument("--few", type=int, default=400, help="photographs of the rows that compare steps")
    parser.add_argument("--workers", type=int, default=1, help="decoding processes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for every row")
    parser.add_argument("--quick", action="store_true", help="48 pictures made here, a few rows")
    parser.add_argument("--training-pictures", type=Path, metavar="FILE", help="only list those outside the test part")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.training_pictures:
        list_training_pictures(read_photographs(arguments.photographs), arguments.training_pictures)
        return
    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            write_stand_in(Path(folder) / "photographs")
            place = Workplace(Path(folder) / "photographs", Path(folder) / "work", _QUICK)
            show(chosen_rows(_QUICK_ROWS, few=24), place, scores_worse=chosen_rows(_SCORES_WORSE, few=24))
        return
    options = dict(parse_assignment(each) for each in arguments.set)
    place = Workplace(arguments.photographs, arguments.work, {"runtime.workers": arguments.workers, **options})
    asked = [name.strip() for name in arguments.rows.split(",") if name.strip()]
    named = ",".join(name for name in asked if name != _SEVERITY)
    sizes = {"few": arguments.few, "take": arguments.take}
    rows = chosen_rows(named, **sizes) if named else () if asked else all_rows(**sizes)
    with_severity = not asked or _SEVERITY in asked
    show(rows, place, scores_worse=chosen_rows(_SCORES_WORSE, **sizes) if with_severity else ())


def show(rows: Sequence[Row], place: Workplace, *, scores_worse: Sequence[Row]) -> None:
    """Make rows and tables; the tables are printed and, as Markdown, put into the work folder.

    Args:
        rows: Of the table of quality.
        place: Where photographs come from, and where results are kept.
        scores_worse: Rows whose regressors score photographs that were made worse.
    """
    console = Console(width=160)
    judged = []
    for row in rows:
        judged.append(Judged(row, predictions_of(row, place), place.of_row(row), place.seconds_per_photograph(row)))
        console.print(quality_table(judged[-1:]))
    tables = {"quality": quality_table(judged)} if judged else {}
    if (differences := differences_table(judged)).row_count:
        tables["differences"] = differences
    for row in scores_worse:
        predictions_of(row, place)
        contents = clean_contents(place.of_row(row))
        runtime = place.settings(row).runtime
        declines = measure(contents, place.trained(row), runtime, place.work / "made-worse")
        tables["severity"] = severity_table(declines)
    for name, table in tables.items():
        console.print(table)
        atomic_write_text(place.work / f"{name}.md", as_markdown(table))


if __name__ == "__main__":
    main()
