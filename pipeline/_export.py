"""``diffvqa export``: a data set's features in a format of other programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.cache._export import Exported, FeatureExport, Progress
    from diffvqa.cache._reader import FeatureCache
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._manifest import Manifest

logger = logging.getLogger(__name__)


class ExportFormat(StrEnum):
    """Formats that features can be exported to."""

    H5 = "h5"
    NPZ = "npz"
    PARQUET = "parquet"


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Attributes:
        path: The file, or the folder of files; a path or a URL.
        videos: How many it holds.
        size: Bytes.
        seconds: How long it took.
    """

    path: Path | str
    videos: int
    size: int
    seconds: float


def export(
    name: str,
    settings: Settings,
    *,
    file_format: ExportFormat = ExportFormat.H5,
    out: Path | str | None = None,
    cache: Path | str | None = None,
    arrays: Sequence[str] | None = None,
) -> ExportSummary:
    """Export a data set's features with its ids, labels and provenance.

    Args:
        name: The data set's.
        settings: Where outputs lie.
        file_format: Of the file; NPZ is a folder with a file for every video.
        out: The file's or folder's path or URL; when None ``runs/<name>/<name>.<format>``, or ``runs/<name>/npz``.
        cache: Path or URL of the features; ``runs/<name>/features`` when None.
        arrays: Names such as ``resize/latent``; all when None.

    Raises:
        DatasetError: The data set is not prepared.
        CacheError: There are no features, they are damaged, or they have no such array.
        OutputError: The file cannot be written.
    """
    from importlib.metadata import version

    from diffvqa.cache._export import FeatureExport, Labels
    from diffvqa.cache._reader import FeatureCache
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._manifest import read_manifest
    from diffvqa.pipeline._runs import DatasetRun

    begun = time.monotonic()
    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    features = FeatureCache(cache or run.features)
    chosen = FeatureExport(
        features,
        labels=Labels(
            scores={row.video_id: row.score for row in manifest.rows},
            groups={row.video_id: row.group for row in manifest.rows},
            description=str(manifest.label),
        ),
        provenance={"data_set": name, "settings": settings.to_toml(), "exported_by": f"diffvqa {version('diffvqa')}"},
        arrays=arrays,
    )
    _tell_what_is_left_out(manifest, features)
    path = out or run.folder / ("npz" if file_format is ExportFormat.NPZ else f"{name}.{file_format}")
    with progress(f"export {name}") as report:
        exported = _write(chosen, file_format, path, report.set)
    return ExportSummary(path, exported.videos, exported.size, time.monotonic() - begun)


def _tell_what_is_left_out(manifest: Manifest, features: FeatureCache) -> None:
    listed, usable = {row.video_id for row in manifest.rows}, set(features.ids())
    if listed - usable:
        logger.warning("%d video(s) of the manifest have no features and are left out", len(listed - usable))
    if usable - listed:
        logger.warning("%d video(s) with features are not in the manifest and are left out", len(usable - listed))


def _write(chosen: FeatureExport, file_format: ExportFormat, out: Path | str, on_progress: Progress) -> Exported:
    match file_format:
        case ExportFormat.H5:
            from diffvqa.cache._export_h5 import export_h5

            return export_h5(chosen, out, on_progress)
        case ExportFormat.NPZ:
            from diffvqa.cache._export_npz import export_npz

            return export_npz(chosen, out, on_progress)
        case ExportFormat.PARQUET:
            from diffvqa.cache._export_parquet import export_parquet

            return export_parquet(chosen, out, on_progress)


def command(
    name: Annotated[str, typer.Argument(help="A data set with features.", show_default=False)],
    file_format: Annotated[
        ExportFormat,
        typer.Option("--format", help="HDF5, a folder of NPZ files, or pooled vectors as Parquet."),
    ] = ExportFormat.H5,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="PATH|URL",
            help="The file or folder (default: runs/NAME/NAME.FORMAT, or runs/NAME/npz).",
            show_default=False,
        ),
    ] = None,
    arrays: Annotated[
        str | None,
        typer.Option(
            "--arrays",
            metavar="NAME,...",
            help="Only these, such as resize/latent,crop/latent (default: all).",
            show_default=False,
        ),
    ] = None,
    cache: options.Cache = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Write a data set's features, ids and labels in a format of other programs."""
    settings = options.settings_from(config, assignments, {"runtime.runs": runs}, show=show_config)
    names = None if arrays is None else [part.strip() for part in arrays.split(",") if part.strip()]
    summary = export(name, settings, file_format=file_format, out=out, cache=cache, arrays=names)
    from diffvqa.pipeline._console import in_words, show_json, tell

    if as_json:
        where = {"path": str(summary.path), "videos": summary.videos, "bytes": summary.size}
        show_json(where | {"seconds": round(summary.seconds, 3)})
        return
    tell(f"{name}: {summary.videos} videos, {summary.size / 1e6:.1f} MB, {in_words(summary.seconds)}")
    tell(f"{'folder' if file_format is ExportFormat.NPZ else 'file'}: {summary.path}")
