"""``diffvqa score``: scores of new videos, with a model trained before."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import options

if TYPE_CHECKING:
    from rich.table import Table

    from diffvqa.pipeline.config import Settings
    from diffvqa.pipeline.manifest import Label
    from diffvqa.pipeline.scorer import ScoredVideo

_WriteRow = Callable[["ScoredVideo"], None]

_LIST_SUFFIX = ".txt"
_STANDARD_INPUT = "-"
_COLUMNS = ("path", "score", "score_std", "label", "status", "reason", "detail")


@dataclass(frozen=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        model: Folder of the trained model.
        label: What the scores are.
        videos: One per video, in the order given.
        csv: The file, if one was asked for.
        seconds: How long it took.
    """

    model: Path
    label: Label
    videos: tuple[ScoredVideo, ...]
    csv: Path | None
    seconds: float


def score(
    paths: Sequence[str],
    settings: Settings,
    *,
    model: str | None = None,
    scale: str | None = None,
    csv_file: Path | None = None,
) -> ScoreSummary:
    """Score videos; a video that cannot be used becomes a row with a reason.

    Args:
        paths: Video files, folders of them, lists of them (``.txt``, one path a line), or ``-`` for a list from
            standard input.
        settings: The runtime; the recipe is the trained model's own.
        model: A data set's name or a model folder; may be None when there is but one trained model.
        scale: Data set on whose label scale to score, for a model of several; the first when None.
        csv_file: Where to write the scores, row by row as they come.

    Raises:
        DatasetError: A folder or a list holds no video.
        ConfigError: There is no such trained model, or several and none was named.
        FingerprintMismatchError: The diffusion model is not the one it was trained with.
        OutputError: The file cannot be written.
    """
    from diffvqa.cache.atomic import atomic_write_text
    from diffvqa.pipeline.console import progress
    from diffvqa.pipeline.scorer import Scorer, locate_trained_model

    begun = time.monotonic()
    videos = list(dict.fromkeys(path for given in paths for path in _videos_of(given)))
    folder = locate_trained_model(model, settings.runtime.runs)
    scorer = Scorer(folder, settings.runtime, scale=scale)
    scored = []
    with _csv_writer(csv_file, scorer.label) as write, progress("score", len(videos)) as report:
        for video in scorer.score(videos):
            write(video)
            scored.append(video)
            report.advance(failed=video.score is None)
    if csv_file is not None:
        used = settings.model_copy(update={"extract": scorer.recipe, "train": scorer.train_recipe})
        atomic_write_text(csv_file.with_suffix(".settings.toml"), used.to_toml())
    return ScoreSummary(folder, scorer.label, tuple(scored), csv_file, time.monotonic() - begun)


def score_table(summary: ScoreSummary) -> Table:
    """Return the table of the videos that were scored."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"predicted {summary.label}", title_justify="left")
    table.add_column("video")
    table.add_column("score", justify="right")
    table.add_column("± over splits", justify="right")
    for video in summary.videos:
        if video.score is not None and video.score_std is not None:
            table.add_row(Text(str(video.path)), f"{video.score:.2f}", f"{video.score_std:.2f}")
    return table


def _videos_of(given: str) -> list[Path]:
    """Return the videos that one argument stands for; a file that is not there comes back, to become a failure."""
    from diffvqa.pipeline.datasets.folder import find_videos
    from diffvqa.pipeline.errors import DatasetError

    if given == _STANDARD_INPUT:
        lines, where = sys.stdin.read().splitlines(), "standard input"
    elif Path(given).is_dir():
        return find_videos(Path(given))
    elif Path(given).suffix.lower() == _LIST_SUFFIX:
        try:
            lines, where = Path(given).read_text(encoding="utf-8").splitlines(), given
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"Cannot read the list {given}: {error}.", "Give a text file, a path a line.") from error
    else:
        return [Path(given)]
    listed = [Path(line.strip()) for line in lines if line.strip()]
    if not listed:
        raise DatasetError(f"{where} lists no videos.", "Give one path a line.")
    return listed


@contextmanager
def _csv_writer(path: Path | None, label: Label) -> Iterator[_WriteRow]:
    from diffvqa.cache.atomic import reporting_output_errors

    if path is None:
        yield lambda _: None
        return
    with reporting_output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", newline="")
    with file:
        writer = csv.writer(file, lineterminator="\n")

        def write_cells(cells: Sequence[object]) -> None:
            with reporting_output_errors(path):  # only the writing: an error of the scoring is not the file's
                writer.writerow(cells)
                file.flush()

        def write(video: ScoredVideo) -> None:
            numbers = ("", "") if video.score is None else (repr(video.score), repr(video.score_std))
            status = "failed" if video.score is None else "ok"
            write_cells((video.path, *numbers, label, status, video.reason, video.detail))

        write_cells(_COLUMNS)
        yield write


def command(
    paths: Annotated[
        list[str],
        typer.Argument(help="Videos, folders, lists (.txt, a path a line), or - for a list from standard input."),
    ],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the scores to this file.", show_default=False, dir_okay=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Data set whose model to use, or a folder (default: the only one).", show_default=False
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", help="Data set whose scale to score on, if trained on several (default: the first)."),
    ] = None,
    strict: options.Strict = False,
    device: options.Device = None,
    workers: options.Workers = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> int:
    """Score videos with a model trained before; its recipe is used, whatever the settings say."""
    chosen = {"runtime.device": device, "runtime.workers": workers, "runtime.runs": runs}
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    summary = score(paths, settings, model=model, scale=scale, csv_file=csv_file)
    _show(summary)
    failed = sum(video.score is None for video in summary.videos)
    return int(failed == len(summary.videos) or (strict and failed > 0))


def _show(summary: ScoreSummary) -> None:
    from diffvqa.pipeline.console import failure_table, in_words, output_console

    failures = [video for video in summary.videos if video.score is None]
    if summary.csv is None and len(failures) < len(summary.videos):
        output_console().print(score_table(summary))
    if failures:
        output_console().print(failure_table((str(video.path), video.reason, video.detail) for video in failures))
    typer.echo(
        f"{len(summary.videos) - len(failures)} videos scored, {len(failures)} failed, {in_words(summary.seconds)}; "
        f"model {summary.model}; scores are {summary.label}"
    )
    if summary.csv is not None:
        typer.echo(f"scores: {summary.csv}")
