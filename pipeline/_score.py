"""``diffvqa score``: scores of new videos, with a model trained before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._manifest import Label
    from diffvqa.pipeline._score_output import ScoreFile
    from diffvqa.pipeline._scored_video import ScoredVideo
    from diffvqa.pipeline._scorer import Scorer

BELOW_MINIMUM = 3
_SAME_ON_RESUMING = ("model_sha256", "label", "features", "timeline")


class Format(StrEnum):
    """How scores are shown on standard output."""

    TABLE = "table"
    CSV = "csv"
    JSON_LINES = "jsonl"


@dataclass(frozen=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        model: Folder of the trained model.
        label: What the scores are.
        videos: One per video, in the order given; those scored before without their timelines.
        scored_before: How many of them an interrupted run had done.
        out: The file, if one was asked for.
        cache: Where the features were kept, if they were.
        seconds: How long it took.
    """

    model: Path
    label: Label
    videos: tuple[ScoredVideo, ...]
    scored_before: int
    out: Path | None
    cache: str | None
    seconds: float

    @property
    def failures(self) -> tuple[ScoredVideo, ...]:
        """The videos that have no score."""
        return tuple(video for video in self.videos if video.score is None)

    @property
    def lowest(self) -> ScoredVideo | None:
        """The video of the lowest score; None where there is none."""
        scored = [video for video in self.videos if video.score is not None]
        return min(scored, key=lambda video: video.score or 0.0, default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        scores = [video.score for video in self.videos if video.score is not None]
        return {
            "model": str(self.model),
            "label": str(self.label),
            "videos": len(self.videos),
            "scored": len(scores),
            "scored_before": self.scored_before,
            "failed": len(self.failures),
            "failures": dict(Counter(str(video.reason) for video in self.failures)),
            "mean": sum(scores) / len(scores) if scores else None,
            "lowest": min(scores, default=None),
            "highest": max(scores, default=None),
            "out": None if self.out is None else str(self.out),
            "cache": self.cache,
            "seconds": round(self.seconds, 3),
        }


def score(
    paths: Sequence[str],
    settings: Settings,
    *,
    model: str | None = None,
    scale: str | None = None,
    out: Path | None = None,
    timeline: bool = False,
    resume: bool = False,
    cache: str | None = None,
    on_scored: Callable[[ScoredVideo, Label], None] = lambda _video, _label: None,
) -> ScoreSummary:
    """Score videos; a video that cannot be used becomes a row with a reason.

    A video's score is the same whatever else is scored with it, so that an interrupted run that is gone on with leaves
    the same file as one that was not interrupted.

    Args:
        paths: Video files, folders of them, URLs of either, patterns, lists of them (``.txt``, one path or URL a line),
            or ``-`` for a list from standard input.
        settings: The runtime; the recipe is the trained model's own.
        model: A data set's name or a model folder; may be None when there is but one trained model.
        scale: Data set on whose label scale to score, for a model of several; the first when None.
        out: Where to write the scores, row by row as they come: ``.csv`` or ``.jsonl``.
        timeline: Write the quality and the weight of each frame too.
        resume: Go on with the file that is there; videos that have a row, failures too, are not scored again.
        cache: Folder or URL to keep the features at; features that are there already are used.
        on_scored: Called with each video that was scored now, and the label of its score.

    Raises:
        DatasetError: A folder, a pattern or a list holds no video.
        ConfigError: There is no such trained model, or several and none was named; or the file to go on with was made
            otherwise.
        FingerprintMismatchError: The diffusion model is not the one it was trained with.
        CacheError: The cache is busy, damaged, or holds other features.
        OutputError: The file or the cache cannot be written.
    """
    from diffvqa.pipeline._waiting import wait_without_spinning

    wait_without_spinning()
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._runs import locate_trained_model
    from diffvqa.pipeline._score_inputs import videos_of

    begun = time.monotonic()
    # What is wrong is said at once: the imports below take seconds.
    videos = videos_of(paths)
    folder = locate_trained_model(model, settings.runtime.runs)
    from diffvqa.pipeline._score_output import ScoreFile
    from diffvqa.pipeline._scorer import Scorer

    file = None if out is None else ScoreFile(out, timeline)
    before: dict[Path | str, ScoredVideo] = {}
    scored: dict[Path | str, ScoredVideo] = {}
    with Scorer(folder, settings.runtime, scale=scale) as scorer, ExitStack() as opened:
        write: Callable[[ScoredVideo], None] | None = None
        if file is not None:
            before = _begin(file, scorer, timeline=timeline, resume=resume)
            write = opened.enter_context(file.opened(str(scorer.label)))
        report = opened.enter_context(progress("score", len(videos)))
        for video in _scores(scorer, videos, before, cache, settings):
            scored[video.path] = video
            if video.path not in before:
                if write is not None:
                    write(video)
                on_scored(video, scorer.label)
            report.advance(failed=video.score is None)
    done_before = sum(path in before for path in videos)
    in_order = tuple(scored[path] for path in videos)
    return ScoreSummary(scorer.folder, scorer.label, in_order, done_before, out, cache, time.monotonic() - begun)


def _begin(file: ScoreFile, scorer: Scorer, *, timeline: bool, resume: bool) -> dict[Path | str, ScoredVideo]:
    """Begin or go on with a file; return the videos that have their row already."""
    from diffvqa.pipeline._backbone import software_versions

    provenance = {
        "model": str(scorer.folder),
        "model_sha256": scorer.digest,
        "label": str(scorer.label),
        "features": scorer.fingerprint.digest,
        "timeline": timeline,
        "recipe": {"extract": scorer.recipe.model_dump(), "train": scorer.train_recipe.model_dump()},
        "software": software_versions(),
    }
    if resume:
        return {video.path: video for video in file.go_on(provenance, _SAME_ON_RESUMING)}
    file.begin(provenance)
    return {}


def _scores(
    scorer: Scorer,
    videos: Sequence[Path | str],
    before: dict[Path | str, ScoredVideo],
    cache: str | None,
    settings: Settings,
) -> Iterator[ScoredVideo]:
    """Yield every video's score or failure, in the order given, those of an interrupted run among them."""
    if cache is None:
        new = scorer.score([path for path in videos if path not in before])
        yield from (before[path] if path in before else next(new) for path in videos)
        return
    from diffvqa.pipeline._score_cache import score_and_keep

    yield from score_and_keep(scorer, videos, cache, shard_videos=settings.runtime.shard_videos, scored_before=before)


def command(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Videos, folders, URLs of either, patterns ('clips/**/*.mp4'), lists (.txt, one a line), or - for "
            "a list from standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write the scores to this file, .csv or .jsonl, as they come.",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option(
            "--format", help="How to show the scores (default: table, and nothing with --out).", show_default=False
        ),
    ] = None,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline",
            help="Quality, weight and time of each sampled frame too: in the rows of .jsonl, or in NAME.timeline.csv.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the file of --out: videos that have a row are not scored again."),
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score", help=f"Exit with status {BELOW_MINIMUM} if any score is lower.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Data set whose model to use, or a folder (default: the only one).", show_default=False
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="Data set on whose scale to score, if trained on several (default: the first).",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache", metavar="PATH|URL", help="Keep the features here, and use those that are.", show_default=False
        ),
    ] = None,
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
    """Score videos with a model trained before; its recipe is used, whatever the settings say."""
    from diffvqa.pipeline._errors import ConfigError

    chosen = {"runtime.device": device, "runtime.workers": workers, "runtime.runs": runs}
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    if resume and out is None:
        raise ConfigError("--resume goes on with a file.", "Name it with --out.")
    if as_json and output_format is not None:
        raise ConfigError("--json and --format both want standard output.", "Leave out one of them.")
    if timeline and output_format is Format.CSV:
        raise ConfigError("The rows of --format csv have no place for a timeline.", "Use --format jsonl, or --out.")
    if out is not None:
        options.go_on_with(context, "Add --resume to go on." if not resume else "Run the same command again to go on.")
    shown = output_format or (Format.TABLE if out is None and not as_json else None)
    summary = score(
        paths,
        settings,
        model=model,
        scale=scale,
        out=out,
        timeline=timeline,
        resume=resume,
        cache=cache,
        on_scored=_shower(shown, timeline=timeline),
    )
    _show(summary, as_json=as_json, rows_shown=shown in (Format.CSV, Format.JSON_LINES), min_score=min_score)
    return _exit_status(summary, strict=strict, min_score=min_score)


def _shower(shown: Format | None, *, timeline: bool) -> Callable[[ScoredVideo, Label], None]:
    """Return what shows each video on standard output as it comes."""
    from diffvqa.pipeline._score_output import RowFormat, score_heading, score_line, timeline_lines

    if shown is None:
        return lambda _video, _label: None
    if shown is Format.TABLE:
        heading = [score_heading()]

        def show_line(video: ScoredVideo, _label: Label) -> None:
            frames = timeline_lines(video) if timeline else []
            typer.echo("\n".join((*heading, score_line(video), *frames)))
            heading.clear()

        return show_line
    row_format = RowFormat(shown)
    above = [row_format.heading()]

    def show_row(video: ScoredVideo, label: Label) -> None:
        typer.echo("".join((*above, row_format.row(video, str(label), timeline=timeline))), nl=False)
        above.clear()

    return show_row


def _show(summary: ScoreSummary, *, as_json: bool, rows_shown: bool, min_score: float | None) -> None:
    from diffvqa.pipeline._console import failure_table, in_words, show_json, tell

    if as_json:
        show_json(summary.as_json())
        return
    failures = summary.failures
    scored = len(summary.videos) - len(failures)
    lines = []
    before = f", {summary.scored_before} of them before" if summary.scored_before else ""
    lines.append(f"{scored} videos scored, {len(failures)} failed{before}, {in_words(summary.seconds)}")
    if failures:
        by_reason = Counter(str(video.reason) for video in failures)
        lines.append(f"failed: {', '.join(f'{count} {reason}' for reason, count in by_reason.most_common())}")
    if summary.lowest is not None and scored > 1:
        lines.append(f"lowest: {summary.lowest.score:.2f}, {summary.lowest.path}")
    if min_score is not None:
        below = sum(video.score is not None and video.score < min_score for video in summary.videos)
        lines.append(f"below {min_score:g}: {below}")
    lines.append(f"model {summary.model}; scores are {summary.label}")
    lines += [f"{what}: {where}" for what, where in (("scores", summary.out), ("features", summary.cache)) if where]
    if failures and summary.out is not None:
        tell(failure_table((str(video.path), video.reason, video.detail) for video in failures), error=rows_shown)
    tell(*lines, error=rows_shown)


def _exit_status(summary: ScoreSummary, *, strict: bool, min_score: float | None) -> int:
    failed = len(summary.failures)
    if failed == len(summary.videos) or (strict and failed):
        return 1
    too_low = min_score is not None and summary.lowest is not None and (summary.lowest.score or 0.0) < min_score
    return BELOW_MINIMUM if too_low else 0
