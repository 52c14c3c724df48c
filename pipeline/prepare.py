"""``diffvqa prepare``: list a data set's videos and scores in a manifest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import options

if TYPE_CHECKING:
    from diffvqa.pipeline.config import Settings
    from diffvqa.pipeline.datasets import ColumnNames
    from diffvqa.pipeline.manifest import Manifest, MatchReport

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class PrepareSummary:
    """What was prepared.

    Attributes:
        manifest: The videos.
        report: How labels and videos fitted together.
        path: The manifest's file.
    """

    manifest: Manifest
    report: MatchReport
    path: Path


def prepare(
    recipe_name: str,
    settings: Settings,
    *,
    name: str | None = None,
    videos: Path | None = None,
    labels: Path | None = None,
    columns: ColumnNames | None = None,
) -> PrepareSummary:
    """Prepare a data set under ``runs/<name>``.

    Args:
        recipe_name: Kind of data set; see ``diffvqa.pipeline.datasets``.
        settings: Where outputs lie.
        name: What to call it; the recipe's name when it needs no videos, else required.
        videos: Folder of the videos.
        labels: Label file.
        columns: Which of its columns hold what.

    Raises:
        DatasetError: The recipe is unknown, or the data set cannot be prepared.
        OutputError: The folder cannot be written.
    """
    from diffvqa.cache.atomic import atomic_write_text
    from diffvqa.pipeline.config import SETTINGS_FILE
    from diffvqa.pipeline.console import progress
    from diffvqa.pipeline.datasets import ColumnNames, PrepareRequest, Progress, find_recipe
    from diffvqa.pipeline.errors import DatasetError
    from diffvqa.pipeline.manifest import MANIFEST_FILE, write_manifest
    from diffvqa.pipeline.runs import DatasetRun

    recipe = find_recipe(recipe_name)
    if name is None and recipe.needs_videos:
        raise DatasetError(f"A data set made by '{recipe_name}' needs a name.", "Give it with --name.")
    run = DatasetRun(settings.runtime.runs, name or recipe_name)
    request = PrepareRequest(
        name=run.name,
        folder=run.folder,
        videos=videos,
        labels=labels,
        columns=columns or ColumnNames(),
        workers=settings.runtime.workers,
    )
    with progress(f"prepare {run.name}") as report:

        def on_progress(step: Progress) -> None:
            report.set(step.done, step.total, note=step.item)

        prepared = recipe.prepare(request, on_progress)
    write_manifest(run.folder, prepared.manifest, recipe=recipe_name, report=prepared.report)
    atomic_write_text(run.folder / SETTINGS_FILE, settings.to_toml())
    return PrepareSummary(prepared.manifest, prepared.report, run.folder / MANIFEST_FILE)


def command(
    recipe: Annotated[str, typer.Argument(help="Kind of data set: demo, csv or folder.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it (default: the recipe's name).", show_default=False)
    ] = None,
    videos: Annotated[Path | None, typer.Option("--videos", help="Folder of the videos.", show_default=False)] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="File with the scores (csv).", show_default=False)
    ] = None,
    video_column: Annotated[str, typer.Option(help="Its column with the videos' names.")] = "video",
    score_column: Annotated[str, typer.Option(help="Its column with the scores.")] = "score",
    group_column: Annotated[str, typer.Option(help="Its column with the content groups; may be absent.")] = "group",
    workers: options.Workers = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """List a data set's videos and scores in a manifest: runs/NAME/manifest.csv."""
    settings = options.settings_from(
        config, assignments, {"runtime.runs": runs, "runtime.workers": workers}, show=show_config
    )
    from diffvqa.pipeline.datasets import ColumnNames

    summary = prepare(
        recipe,
        settings,
        name=name,
        videos=videos,
        labels=labels,
        columns=ColumnNames(video_column, score_column, group_column),
    )
    _show(summary)


def _show(summary: PrepareSummary) -> None:
    manifest, report = summary.manifest, summary.report
    labelled = sum(row.score is not None for row in manifest.rows)
    groups = len({row.group for row in manifest.rows})
    if report.labels_without_video:
        logger.warning(
            "%d label(s) without a video: %s; they stay in the manifest, and extraction lists them as missing",
            len(report.labels_without_video),
            _first_of(report.labels_without_video),
        )
    if labelled and report.videos_without_label:
        logger.warning(
            "%d video(s) without a label, left out: %s",
            len(report.videos_without_label),
            _first_of(report.videos_without_label),
        )
    scores = f"{labelled} with a score, {manifest.label}" if labelled else "no scores"
    typer.echo(f"{manifest.name}: {len(manifest.rows)} videos in {groups} content groups; {scores}")
    typer.echo(f"manifest: {summary.path}")
    typer.echo(f"next: diffvqa extract {manifest.name}")


def _first_of(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown}, …" if len(names) > _NAMES_SHOWN else shown
