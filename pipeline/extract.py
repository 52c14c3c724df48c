"""``diffvqa extract``: run the diffusion model once over every video and keep its features."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import options

if TYPE_CHECKING:
    from diffvqa.cache.schema import VideoRow
    from diffvqa.cache.writer import CacheWriter, ResumePlan
    from diffvqa.pipeline.backbone import Backbone
    from diffvqa.pipeline.config import Settings
    from diffvqa.stages.decoding import FailedVideo, VideoSource
    from diffvqa.stages.view_batches import ExtractedVideo

logger = logging.getLogger(__name__)

_WAITING_TO_BE_WRITTEN = 8


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Attributes:
        cache: Where the features lie.
        extracted: Videos done now.
        done_before: Videos whose features were there already.
        failures: Rows of the data set's videos without features, earlier ones included.
        labelled: Whether the data set has scores to train on.
        seconds: How long it took.
    """

    cache: str
    extracted: int
    done_before: int
    failures: tuple[VideoRow, ...]
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
        OutputError: The cache cannot be written.
    """
    from diffvqa.cache.writer import CacheWriter
    from diffvqa.pipeline.backbone import load_backbone
    from diffvqa.pipeline.cache_rows import cache_header
    from diffvqa.pipeline.manifest import read_manifest
    from diffvqa.pipeline.runs import DatasetRun
    from diffvqa.pipeline.waiting import wait_without_spinning
    from diffvqa.stages.decoding import VideoSource

    begun = time.monotonic()
    wait_without_spinning()
    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    manifest = read_manifest(run.folder)
    # Not taken apart before they are needed: of 100,000 paths that takes a second.
    files = {row.video_id: row.location for row in manifest.rows}
    location, runtime = cache or run.features, settings.runtime
    backbone = load_backbone(settings.extract, runtime)
    header = cache_header(settings.extract, backbone)
    with CacheWriter(location, header, shard_videos=runtime.shard_videos, overwrite=overwrite) as writer:
        plan = writer.plan(files.items(), retry_failed=retry_failed)
        _report(plan, str(location))
        sources = [VideoSource(video_id, Path(files[video_id])) for video_id in plan.pending]
        failed_now = _extract_into(writer, sources, backbone, settings, f"extract {name}")
    return ExtractSummary(
        cache=str(location),
        extracted=len(sources) - len(failed_now),
        done_before=len(plan.done),
        failures=(*plan.failed_before, *failed_now),
        labelled=any(row.score is not None for row in manifest.rows),
        seconds=time.monotonic() - begun,
    )


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


def _extract_into(
    writer: CacheWriter, sources: Sequence[VideoSource], backbone: Backbone, settings: Settings, description: str
) -> list[VideoRow]:
    """Extract the videos, hand each to the writer, and return the rows of those that failed."""
    from diffvqa.cache.schema import SourceStamp
    from diffvqa.pipeline.cache_rows import shard_entry
    from diffvqa.pipeline.console import progress
    from diffvqa.stages.decode_pool import DecodePool
    from diffvqa.stages.decoding import FailedVideo
    from diffvqa.stages.extraction import extract_units, in_units

    recipe, runtime = settings.extract, settings.runtime
    # Taken before decoding: a file that changes meanwhile then differs from its stamp, and is done again.
    stamps = {source.video_id: SourceStamp.of(source.path) for source in sources}
    failed: list[VideoRow] = []

    def write(result: ExtractedVideo | FailedVideo) -> None:
        entry = shard_entry(result, stamps)
        writer.add(entry)
        if entry.arrays is None:
            failed.append(entry.row)

    with (
        progress(description, len(sources)) as report,
        DecodePool(
            recipe, workers=runtime.workers, timeout=runtime.decode_timeout, memory=runtime.decode_memory
        ) as pool,
        ThreadPoolExecutor(1, thread_name_prefix="write") as writing,
    ):
        # Files are hashed and shards written while the model computes the videos after them.
        written: deque[Future[None]] = deque()
        units = in_units(sources, runtime.shard_videos)
        for result in extract_units(units, backbone.extractor, pool, recipe):
            written.append(writing.submit(write, result))
            if len(written) > _WAITING_TO_BE_WRITTEN:
                written.popleft().result()
            report.advance(failed=isinstance(result, FailedVideo))
        for each in written:
            each.result()
    return failed


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
        "runtime.device": device,
        "runtime.workers": workers,
        "runtime.runs": runs,
    }
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    summary = extract(name, settings, cache=cache, retry_failed=retry_failed, overwrite=overwrite)
    _show(name, summary, retried=retry_failed, as_json=as_json)
    return _exit_status(summary, strict=strict)


def _show(name: str, summary: ExtractSummary, *, retried: bool, as_json: bool) -> None:
    from diffvqa.pipeline.console import failure_table, in_words, show_json, tell

    if as_json:
        show_json(summary.as_json())
        return
    if summary.failures:
        tell(failure_table((row.video_id, row.reason, row.detail) for row in summary.failures))
    tell(
        f"{name}: {summary.extracted} videos extracted, {summary.done_before} were done, "
        f"{len(summary.failures)} failed, {in_words(summary.seconds)}"
    )
    if summary.failures and not retried:
        tell("once they are mended: --retry-failed tries them again")
    tell(f"features: {summary.cache}")
    if summary.extracted + summary.done_before:
        tell(f"next: diffvqa {'train' if summary.labelled else 'export'} {name}")


def _exit_status(summary: ExtractSummary, *, strict: bool) -> int:
    nothing_worked = not summary.extracted and not summary.done_before
    return int(nothing_worked or (strict and bool(summary.failures)))
