"""``diffvqa cache``: look at a feature cache, check it, and join several."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _cache_import as cache_import
from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.cache._reader import CacheInfo, FeatureCache
    from diffvqa.cache._schema import VideoRow
    from diffvqa.cache._verify import VerifyReport

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Look at a feature cache, check it, or join several."
)
app.command("import")(cache_import.command)

CacheName = Annotated[
    str, typer.Argument(metavar="CACHE", help="A data set's name, or a cache's folder or URL.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for other programs.")]


def locate_cache(name: str, runs: Path | None) -> Path | str:
    """Return where a cache is: that of a data set, or the folder or URL given.

    Args:
        name: A data set's name, or a folder, or a URL.
        runs: The folder of all runs; the settings' own when None.
    """
    from diffvqa.cache._schema import HEADER_FILE
    from diffvqa.pipeline._config import resolve_settings

    if "://" in name or (Path(name) / HEADER_FILE).is_file():
        return name
    features = resolve_settings(None, {"runtime.runs": runs}).runtime.runs / name / "features"
    return features if features.is_dir() else name


@app.command("info")
def info(
    name: CacheName,
    as_json: Json = False,
    runs: options.Runs = None,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Show what a cache holds: videos, frames, bytes, arrays, failures by reason, and how it was made."""
    from diffvqa.cache._reader import FeatureCache

    found = FeatureCache(locate_cache(name, runs)).info()
    if as_json:
        typer.echo(json.dumps(_info_document(found), indent=2, ensure_ascii=False))
    else:
        _show_info(found)


@app.command("verify")
def verify(
    name: CacheName,
    as_json: Json = False,
    runs: options.Runs = None,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> int:
    """Read every byte of a cache again, compare it with the digests, and name each bad video and array.

    The exit status is 1 when something is damaged.
    """
    from diffvqa.cache._verify import verify as verify_cache
    from diffvqa.pipeline._console import progress

    with progress(f"verify {name}") as bar:
        report = verify_cache(locate_cache(name, runs), on_progress=bar.set)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        _show_report(report)
    return int(bool(report.damages))


@app.command("merge")
def merge(
    sources: Annotated[
        list[str], typer.Argument(metavar="CACHE...", help="Data sets' names, folders or URLs.", show_default=False)
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="PATH|URL", help="The joined cache; added to if it exists.", show_default=False),
    ],
    runs: options.Runs = None,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Join caches of the same features by copying their shards; what was copied before is not copied again.

    Of a video that several have, the last one's features count.
    """
    from diffvqa.cache._merge import merge as merge_caches
    from diffvqa.pipeline._console import progress, tell

    with progress("merge") as bar:
        summary = merge_caches([locate_cache(source, runs) for source in sources], out, on_progress=bar.set)
    if summary.repeated:
        tell(f"{_shortened(summary.repeated)}: in several; the last one's features count")
    tell(f"{summary.copied} shards copied, {summary.there_before} were there, {summary.videos} videos in all")
    tell(f"features: {summary.location}")


@app.command("ls")
def ls(
    name: CacheName,
    failed: Annotated[bool, typer.Option("--failed", help="Only the videos without features.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write each row whole, as JSON, one a line.")] = False,
    runs: options.Runs = None,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """List the videos of a cache, one a line, in the order of writing."""
    from diffvqa.cache._reader import FeatureCache

    for row in _rows(FeatureCache(locate_cache(name, runs)), failed_only=failed):
        typer.echo(row.model_dump_json() if as_json else _line(row))


def _rows(cache: FeatureCache, *, failed_only: bool) -> Iterator[VideoRow]:
    """Yield every video's newest row, a shard at a time."""
    for shard in cache.shards():
        for entry, row in enumerate(cache.shard(shard).mark.rows):
            newest = cache.locate(row.video_id)
            if (newest.shard, newest.entry) == (shard, entry) and not (failed_only and row.status == "ok"):
                yield row


def _line(row: VideoRow) -> str:
    """One row as tab-separated cells: id, status or reason, frames, crops, size of the picture, detail."""
    if row.status != "ok":
        return "\t".join((row.video_id, row.reason, "", "", "", row.detail))
    frames, crops = (str(row.extents.get(dimension, "")) for dimension in ("frame", "crop"))
    return "\t".join((row.video_id, "ok", frames, crops, f"{row.width}x{row.height}", ""))


def _info_document(found: CacheInfo) -> dict[str, Any]:
    return {
        "location": found.location,
        "videos": found.videos,
        "frames": found.frames,
        "failures": dict(found.failures),
        "shards": found.shards,
        "bytes": found.size,
        "damaged": dict(found.damaged),
        "header": found.header.model_dump(mode="json"),
    }


def _show_info(found: CacheInfo) -> None:
    from rich.table import Table

    from diffvqa.pipeline._console import output_console

    header = found.header
    failures = ", ".join(f"{count} {reason}" for reason, count in found.failures.items())
    facts = {
        "cache": found.location,
        "videos": f"{found.videos}, {found.frames} frames",
        "failures": failures or "none",
        "size": f"{found.size / 1e6:.1f} MB in {found.shards} shards",
        "created": header.created,
        "fingerprint": header.fingerprint_digest,
        "recipe": ", ".join(f"{key}={value}" for key, value in header.recipe.items()),
        "software": ", ".join(f"{key} {version}" for key, version in header.software.items()),
        **({"damaged": ", ".join(found.damaged)} if found.damaged else {}),
    }
    for fact, value in facts.items():
        typer.echo(f"{fact + ':':<13}{value}")
    table = Table("array", "of a video, at most", "type", "unit", "values", "content")
    for spec in found.arrays:
        sizes = ", ".join(f"{name} {size}" for name, size in zip(spec.dimensions, spec.shape, strict=True))
        values = "any finite" if spec.value_range is None else "{:g} to {:g}".format(*spec.value_range)
        table.add_row(spec.name, sizes, spec.dtype, spec.unit, values, spec.description)
    output_console().print(table)


def _show_report(report: VerifyReport) -> None:
    """Name what is damaged, which is shown with --quiet too."""
    from diffvqa.pipeline._console import tell

    for damage in report.damages:
        arrays = f", array {', '.join(damage.arrays)}" if damage.arrays else ""
        videos = f", {_shortened(damage.videos, shown=len(damage.videos))}" if damage.videos else ""
        typer.echo(f"{damage.file}: {damage.why}{arrays}{videos}")
    wrong = f"{len(report.damages)} damaged file(s)" if report.damages else "all as written"
    tell(f"{report.location}: {report.videos} videos, {report.size / 1e6:.1f} MB, {report.shards} shards: {wrong}")
    if report.damages:
        tell("to make a damaged shard again: remove its .json mark, then run 'diffvqa extract'")


def _shortened(video_ids: tuple[str, ...], shown: int = 3) -> str:
    more = f" and {len(video_ids) - shown} more" if len(video_ids) > shown else ""
    return f"video(s) {', '.join(video_ids[:shown])}{more}"
