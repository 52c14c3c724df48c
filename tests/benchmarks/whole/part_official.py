"""Extraction against a stand-in of the official workflow: wall time, peak disk, peak memory, with the same features."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._ffmpeg import find_ffmpeg

from .clips import FRAME_RATE, make_clips, write_dataset
from .figures import Measured, Panel, PartResult, Row, Target, count, megabytes, seconds
from .measuring import Usage, run_diffvqa, run_program, run_python
from .options import Options

_WORKFLOW = f"{__package__}.official_workflow"
_CLIPS = 2
_TIMES_AS_FAST = 3.0
_SHARE_OF_DISK = 0.25
_ALIKE = 0.99


@dataclass(frozen=True)
class OfficialCost:
    """What the four steps took; the disk holds the files of all steps at their end."""

    dump: Usage
    resize_pass: Usage
    crop_pass: Usage
    merge: Usage

    @property
    def whole(self) -> Usage:
        """One step after the other."""
        return self.merge.after(self.crop_pass).after(self.resize_pass).after(self.dump)


def measure(options: Options) -> PartResult:
    """Run both in turns on the same clips and compare what they took and what they gave."""
    size, length = ("160x120", 1) if options.quick else ("960x540", 8)
    clips = make_clips(options.folder / "clips", _CLIPS, size=size, seconds=length)
    official: list[OfficialCost] = []
    ours: list[Usage] = []
    for number in range(options.rounds):
        official.append(run_official(clips, options.folder / f"official-{number}", options.assignments))
        ours.append(run_ours(clips, options.folder / f"ours-{number}", options.assignments))
    alike = likeness(options.folder / "official-0/merged", options.folder / "ours-0/clips/features")
    for folder in (*options.folder.glob("official-*"), *options.folder.glob("ours-*")):
        shutil.rmtree(folder)
    theirs = [cost.whole for cost in official]
    faster = seconds([cost.wall for cost in theirs]).over(seconds([cost.wall for cost in ours]))
    disk = megabytes([cost.disk for cost in ours]).over(megabytes([cost.disk for cost in theirs]))
    frames = _CLIPS * length * FRAME_RATE
    panel = Panel(
        title=f"{_CLIPS} clips of {length} s, {size} ({frames} frames), nano, 8 frames and 3 crops of each",
        columns=("workflow", "wall", "CPU", "peak memory", "peak disk"),
        rows=(
            *(_row(f"official: {step}", [getattr(cost, field) for cost in official]) for step, field in _STEPS),
            _row("official: all four steps", theirs),
            _row("diffvqa extract", ours),
            Row(name="official / diffvqa", cells=_ratios(theirs, ours)),
        ),
        note="Whole programs, their start and the loading of the model included. The stand-in writes what the official "
        "code's description says it writes; it runs the model on the wanted frames alone. Its features and ours "
        f"correlate by {alike:.4f}: the rest is ffmpeg's conversion to RGB for PNG beside the decoder's.",
    )
    return PartResult(
        panels=(panel,),
        targets=(
            Target(
                claim="extraction, times as fast as the official workflow",
                measured=faster,
                bound=_TIMES_AS_FAST,
                at_most=False,
            ),
            Target(claim="peak disk, of the official workflow's", measured=disk, bound=_SHARE_OF_DISK),
            Target(
                claim="correlation of the two workflows' features", measured=count(alike), bound=_ALIKE, at_most=False
            ),
        ),
    )


_STEPS = (
    ("dump every frame as PNG", "dump"),
    ("pass over the resized views", "resize_pass"),
    ("pass over the crops", "crop_pass"),
    ("merge the files of frames", "merge"),
)


def run_official(clips: list[Path], work: Path, assignments: list[str]) -> OfficialCost:
    """Run the four steps and return what each took; what they wrote stays."""
    dump = Usage(0.0, 0.0, 0.0)
    for clip in clips:
        (work / "png" / clip.stem).mkdir(parents=True)
        command = [find_ffmpeg().executable, "-loglevel", "error", "-i", str(clip), "-fps_mode", "passthrough"]
        dump = run_program([*command, str(work / "png" / clip.stem / "%06d.png")], watched=work).after(dump)
    resize, crop, merge = (
        run_python(["-m", _WORKFLOW, step, str(work), *assignments], watched=work)
        for step in ("resize", "crop", "merge")
    )
    return OfficialCost(dump, resize, crop, merge)


def run_ours(clips: list[Path], runs: Path, assignments: list[str]) -> Usage:
    """Extract as a user does; what it wrote stays."""
    write_dataset(runs, "clips", clips)
    return run_diffvqa(["extract", "clips", "--runs", str(runs), "--quiet", *assignments], watched=runs)


def likeness(merged: Path, cache: Path) -> float:
    """Return the least correlation of a video's multiscale features from the two workflows."""
    features = FeatureCache(cache)
    found = []
    for video_id in features.ids():
        with np.load(merged / f"{video_id}.npz") as theirs:
            for name in ("resize/multiscale", "crop/multiscale"):
                pair = (theirs[name].ravel().astype(np.float64), features[video_id][name].ravel().astype(np.float64))
                found.append(float(np.corrcoef(*pair)[0, 1]))
    return min(found)


def _row(name: str, costs: list[Usage]) -> Row:
    cells: tuple[Measured, ...] = (
        seconds([cost.wall for cost in costs]),
        seconds([cost.cpu for cost in costs]),
        megabytes([cost.memory for cost in costs]),
        megabytes([cost.disk for cost in costs]),
    )
    return Row(name=name, cells=cells)


def _ratios(theirs: list[Usage], ours: list[Usage]) -> tuple[Measured | None, ...]:
    pairs = zip(_row("", theirs).cells, _row("", ours).cells, strict=True)
    return tuple(their.over(our) if their and our else None for their, our in pairs)
