"""``diffvqa export``: a data set's features in one file, for other programs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import options

if TYPE_CHECKING:
    from diffvqa.pipeline.config import Settings


class ExportFormat(StrEnum):
    """Formats that features can be exported to."""

    H5 = "h5"


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Attributes:
        path: The file.
        videos: How many it holds.
        size: Bytes.
        seconds: How long it took.
    """

    path: Path
    videos: int
    size: int
    seconds: float


def export(
    name: str,
    settings: Settings,
    *,
    file_format: ExportFormat = ExportFormat.H5,
    out: Path | None = None,
    cache: Path | str | None = None,
) -> ExportSummary:
    """Export a data set's features with its ids, labels and provenance.

    Args:
        name: The data set's.
        settings: Where outputs lie.
        file_format: Of the file.
        out: The file; ``runs/<name>/<name>.<format>`` when None.
        cache: Folder or URL of the features; ``runs/<name>/features`` when None.

    Raises:
        DatasetError: The data set is not prepared.
        CacheError: There are no features, or they are damaged.
        OutputError: The file cannot be written.
    """
    from diffvqa.cache.export import export_h5
    from diffvqa.cache.reader import FeatureCache
    from diffvqa.pipeline.console import progress
    from diffvqa.pipeline.manifest import read_manifest
    from diffvqa.pipeline.runs import DatasetRun

    begun = time.monotonic()
    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    features = FeatureCache(cache or run.features)
    path = out or run.folder / f"{name}.{file_format}"
    with progress(f"export {name}") as report:
        videos = export_h5(
            features,
            path,
            scores={row.video_id: row.score for row in manifest.rows},
            groups={row.video_id: row.group for row in manifest.rows},
            label=str(manifest.label),
            provenance={"data_set": name, "settings": settings.to_toml()},
            on_progress=report.set,
        )
    return ExportSummary(path, videos, path.stat().st_size, time.monotonic() - begun)


def command(
    name: Annotated[str, typer.Argument(help="A data set with features.", show_default=False)],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="Of the file.")] = ExportFormat.H5,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file (default: runs/NAME/NAME.h5).", show_default=False)
    ] = None,
    cache: options.Cache = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Write a data set's features, ids and labels to one file."""
    settings = options.settings_from(config, assignments, {"runtime.runs": runs}, show=show_config)
    summary = export(name, settings, file_format=file_format, out=out, cache=cache)
    from diffvqa.pipeline.console import in_words

    typer.echo(f"{name}: {summary.videos} videos, {summary.size / 1e6:.1f} MB, {in_words(summary.seconds)}")
    typer.echo(f"file: {summary.path}")
