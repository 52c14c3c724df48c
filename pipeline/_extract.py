"""``diffvqa extract``: run the diffusion model once over every video and keep its features."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.cache._schema import VideoRow
    from diffvqa.cache._writer import CacheWriter, ResumePlan
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._engines.interface import DoneUnit, WorkUnit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Attributes:
        cache: Where the features lie.
        extracted: Videos done now.
        done_before: Videos whose features were there already.
        failures: Rows of the data set's videos without features, earlier ones included.
        redone: Units of videos that were begun more than once, since a worker was lost.
        labelled: Whether the data set has scores to train on.
        seconds: How long it took.
    """

    cache: str
    extracted: int
    done_before: int
    failures: tuple[VideoRow, ...]
    redone: int
    labelled: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return {
            "cache": self.cache,
            "extracted": self.extracted,
            "done_before": self.done_before,
            "failed": len(self.failures),
            "failures": {row.video_id: row.reason for row in self.failures},
            "seconds": round(self.seconds, 3),
        }


def extract(
    name: str,
    settings: Settings,
    *,
    cache: Path | str | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> ExtractSummary:
    """Extract the features of a prepared data set; videos that are done are not done again.

    Args:
        name: The data set's.
        settings: Recipe and runtime.
        cache: Folder or URL to put the features at; ``runs/<name>/features`` when None.
        retry_failed: Try the videos again that failed before.
        overwrite: Replace features of another recipe instead of refusing.

    Raises:
        DatasetError: The data set is not prepared.
        ModelFolderError: The model cannot be loaded.
        CacheError: The cache is busy, damaged, or holds other features.
        ClusterError: The Ray cluster cannot be used.
        OutputError: The cache cannot be written.
    """
    from diffvqa.pipeline._manifest import read_manifest
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.pipeline._waiting import wait_without_spinning

    begun = time.monotonic()
    wait_without_spinning()
    # What is wrong is said at once: the imports below take seconds.
    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    from diffvqa.cache._writer import CacheWriter
    from diffvqa.pipeline._backbone import load_backbone
    from diffvqa.pipeline._cache_rows import cache_header
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._engines.choice import choose_engine, computes_here
    from diffvqa.pipeline._extraction_task import ExtractionTask

    # Not taken apart before they are needed: of 100,000 paths that takes a second.
    files = {row.video_id: row.location for row in manifest.rows}
    location, runtime = str(_everywhere(cache or run.features)), settings.runtime
    is_here = computes_here(settings)
    backbone = load_backbone(
        settings.extract, runtime if is_here else runtime.model_copy(update={"device": "cpu", "compile": False})
    )
    header = cache_header(settings.extract, backbone)
    engine = choose_engine(settings, backbone if is_here else None)
    del backbone  # where it is not of use here, it need not be kept here
    with CacheWriter(location, header, shard_videos=runtime.shard_videos, overwrite=overwrite) as writer:
        plan = writer.plan(files.items(), retry_failed=retry_failed)
        _report(plan, location)
        task = ExtractionTask(settings, location, writer.header, writer.run)
        with engine, progress(f"extract {name}", len(plan.pending)) as report:
            units = work_units(plan.pending, files, runtime.shard_videos)
            done = publish_units(writer, engine.run(task, units, lambda failed: report.advance(failed=failed)))
    return ExtractSummary(
        cache=location,
        extracted=len(plan.pending) - len(done.failed),
        done_before=len(plan.done),
        failures=(*plan.failed_before, *done.failed),
        redone=done.redone,
        labelled=any(row.score is not None for row in manifest.rows),
        seconds=time.monotonic() - begun,
    )


def work_units(video_ids: Sequence[str], files: Mapping[str, str], videos: int) -> Iterator[WorkUnit]:
    """Yield the videos in units of ``videos`` each, the last perhaps of fewer.

    Args:
        video_ids: What is to be done, in the order of the manifest.
        files: Path or URL of each video's file.
        videos: Of a unit.
    """
    from diffvqa.pipeline._engines.interface import WorkUnit
    from diffvqa.stages._decoding import VideoSource

    for number, begin in enumerate(range(0, len(video_ids), videos)):
        ids = video_ids[begin : begin + videos]
        # Absolute: workers may have another working directory.
        yield WorkUnit(number, tuple(VideoSource(each, _everywhere(files[each])) for each in ids))


@dataclass(frozen=True)
class PublishedUnits:
    """What came of a run's units.

    Attributes:
        failed: Rows of the videos without features.
        redone: How many units had to be begun more than once.
    """

    failed: tuple[VideoRow, ...]
    redone: int


def publish_units(writer: CacheWriter, units: Iterable[DoneUnit]) -> PublishedUnits:
    """Publish each unit once, as it comes.

    Args:
        writer: Of the cache; open.
        units: From an engine.

    Raises:
        OutputError: A mark cannot be written.
        CacheBusyError: Another run has taken over.
    """
    failed: list[VideoRow] = []
    redone = 0
    for done in units:
        writer.publish_staged(done.shard)
        failed.extend(row for row in done.shard.rows if row.status == "failed")
        redone += done.attempts > 1
    if redone:
        writer.remove_unpublished()
    return PublishedUnits(tuple(failed), redone)


def _everywhere(location: Path | str) -> Path | str:
    """Return a path or URL by which every process and machine finds the same place."""
    from diffvqa.cache._source_files import file_location, is_url

    return location if is_url(location) else Path(file_location(location)).absolute()


def _report(plan: ResumePlan, location: str) -> None:
    """Say what is not as it was when the features were made."""
    if plan.changed:
        logger.warning("%s: the file changed since; features are made anew", _some(plan.changed))
    if plan.gone:
        logger.warning("%s: the file is not there any more; features are kept", _some(plan.gone))
    if plan.vanished:
        logger.warning("%s: in %s, and not in the manifest any more", _some(plan.vanished), location)
    is_resumed = plan.done or plan.failed_before or plan.changed or plan.vanished
    if is_resumed and plan.new:
        logger.info("%s: new in the manifest", _some(plan.new))


def _some(video_ids: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(video_ids) - shown} more" if len(video_ids) > shown else ""
    return f"{len(video_ids)} video(s) ({', '.join(video_ids[:shown])}{more})"


def command(
    name: Annotated[str, typer.Argument(help="A prepared data set.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model folder or a shipped one's name; NAME-random: untrained; A+B: both (default: nano).",
            show_default=False,
        ),
    ] = None,
    cache: options.Cache = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="Frames per video (default: 8).", show_default=False)
    ] = None,
    crops: Annotated[
        int | None, typer.Option("--crops", help="Native crops per frame (default: 3).", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again the videos that failed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features of another recipe.")] = False,
    strict: options.Strict = False,
    device: options.Device = None,
    workers: options.Workers = None,
    engine: options.Engine = None,
    address: options.Address = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> int:
    """Run the diffusion model once over every video of a data set and keep its features."""
    chosen = {
        "extract.model": model,
        "extract.frames": frames,
        "extract.crops": crops,
        "runtime.workers": workers,
        **options.place(device, engine, address, runs),
    }
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    summary = extract(name, settings, cache=cache, retry_failed=retry_failed, overwrite=overwrite)
    _show(name, summary, retried=retry_failed, as_json=as_json)
    return _exit_status(summary, strict=strict)


def _show(name: str, summary: ExtractSummary, *, retried: bool, as_json: bool) -> None:
    from diffvqa.pipeline._console import failure_table, in_words, show_json, tell

    if as_json:
        show_json(summary.as_json())
        return
    if summary.failures:
        tell(failure_table((row.video_id, row.reason, row.detail) for row in summary.failures))
    tell(
        f"{name}: {summary.extracted} videos extracted, {summary.done_before} were done, "
        f"{len(summary.failures)} failed, {in_words(summary.seconds)}"
    )
    if summary.redone:
        tell(f"{summary.redone} unit(s) of videos were done again, since a worker was lost")
    if summary.failures and not retried:
        tell("once they are mended: --retry-failed tries them again")
    tell(f"features: {summary.cache}")
    if summary.extracted + summary.done_before:
        tell(f"next: diffvqa {'train' if summary.labelled else 'export'} {name}")


def _exit_status(summary: ExtractSummary, *, strict: bool) -> int:
    nothing_worked = not summary.extracted and not summary.done_before
    return int(nothing_worked or (strict and bool(summary.failures)))
