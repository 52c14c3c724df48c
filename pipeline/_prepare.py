"""``diffvqa prepare``: list a data set's videos and scores in a manifest."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._manifest import Label, Manifest, MatchReport
    from diffvqa.pipeline.datasets import ColumnNames

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
    videos: Path | str | None = None,
    labels: Path | None = None,
    columns: ColumnNames | None = None,
    lower_is_better: bool = False,
) -> PrepareSummary:
    """Prepare a data set under ``runs/<name>``.

    Args:
        recipe_name: Which data set, or which kind of one; see ``diffvqa.pipeline.datasets``.
        settings: Where outputs lie.
        name: What to call it; the recipe's name when None, but required for videos of the user's own.
        videos: Folder of the videos, or its URL.
        labels: Label file, or a folder of some; None to look for those of a published data set beside its videos.
        columns: Which of its columns hold what; for the recipe ``csv``.
        lower_is_better: Whether its scores are such; for the recipe ``csv``.

    Raises:
        DatasetError: The recipe is unknown, or the data set cannot be prepared.
        CacheUnreachableError: The server of the videos' URL does not answer.
        OutputError: The folder cannot be written.
    """
    from diffvqa.cache._atomic import atomic_write_text
    from diffvqa.pipeline._config import SETTINGS_FILE
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._errors import DatasetError
    from diffvqa.pipeline._manifest import MANIFEST_FILE, write_manifest
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.pipeline.datasets import ColumnNames, PrepareRequest, Progress, find_recipe

    recipe = find_recipe(recipe_name)
    if name is None and recipe.needs_videos and recipe.dataset is None:
        raise DatasetError(f"A data set made by '{recipe_name}' needs a name.", "Give it with --name.")
    run = DatasetRun(settings.runtime.runs, name or recipe_name)
    request = PrepareRequest(
        name=run.name,
        folder=run.folder,
        videos=videos,
        labels=labels,
        columns=columns or ColumnNames(),
        lower_is_better=lower_is_better,
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
    recipe: Annotated[
        str, typer.Argument(help="Data set, csv, folder or demo; see `diffvqa datasets`.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it (default: the recipe's name).", show_default=False)
    ] = None,
    videos: Annotated[
        str | None,
        typer.Option("--videos", metavar="PATH|URL", help="Folder of the videos, or its URL.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="File with the scores (default: looked for beside the videos).", show_default=False
        ),
    ] = None,
    video_column: Annotated[str, typer.Option(help="csv: its column with the videos' names.")] = "video",
    score_column: Annotated[str, typer.Option(help="csv: its column with the scores.")] = "score",
    group_column: Annotated[str, typer.Option(help="csv: its column with the contents; may be absent.")] = "group",
    split_column: Annotated[str, typer.Option(help="csv: its column with train or test; may be absent.")] = "split",
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="csv: its scores are, like DMOS.")] = False,
    workers: options.Workers = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
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
        columns=ColumnNames(video_column, score_column, group_column, split_column),
        lower_is_better=lower_is_better,
    )
    _show(summary, as_json=as_json)


def _show(summary: PrepareSummary, *, as_json: bool) -> None:
    from diffvqa.pipeline._console import show_json, tell

    manifest, report = summary.manifest, summary.report
    labelled = sum(row.score is not None for row in manifest.rows)
    groups = len({row.group for row in manifest.rows})
    _warn(
        "label(s) without a video: %s; they stay in the manifest, and extraction lists them as missing",
        report.labels_without_video,
    )
    _warn("video(s) without a label, left out: %s", report.videos_without_label if labelled else ())
    _warn("video(s) labelled twice with one score, kept once: %s", report.duplicates)
    _warn("score(s) missing or off the scale, kept as unlabelled: %s", report.without_score)
    if as_json:
        counts = {"videos": len(manifest.rows), "labelled": labelled, "groups": groups}
        show_json({"manifest": str(summary.path), **counts, "matched": report.matched})
        return
    tell(*report.notes)
    scores = f"{labelled} with a score, {manifest.label}{_scale(manifest.label)}" if labelled else "no scores"
    tell(f"{manifest.name}: {len(manifest.rows)} videos in {groups} content groups; {scores}")
    if labelled:
        tell(
            f"matched {report.matched}, labels without a video {len(report.labels_without_video)}, videos without a "
            f"label {len(report.videos_without_label)}, labelled twice {len(report.duplicates)}, without a usable "
            f"score {len(report.without_score)}"
        )
    for name, parts in manifest.official_splits().items():
        in_parts = Counter(parts.values())
        tell(f"split {name}: {', '.join(f'{in_parts[part]} {part}' for part in sorted(in_parts))}")
    tell(f"manifest: {summary.path}")
    tell(f"next: diffvqa extract {manifest.name}")


def _warn(message: str, names: tuple[str, ...]) -> None:
    if names:
        shown = ", ".join(names[:_NAMES_SHOWN])
        logger.warning(f"%d {message}", len(names), f"{shown}, …" if len(names) > _NAMES_SHOWN else shown)


def _scale(label: Label) -> str:
    if label.lowest is None or label.highest is None:
        return ""
    return f" from {label.lowest:g} to {label.highest:g}"
