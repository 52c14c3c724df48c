"""Stage two against its own limit, against extracting in every epoch, and its scan against mambapy and transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from diffvqa.pipeline._config import resolve_settings
from diffvqa.pipeline._labelled import load_labelled
from diffvqa.stages import _fitting as fitting
from diffvqa.stages._decoding import VideoSource
from diffvqa.stages._fitting import FittedRegressor, TrainingPart, fit_regressor
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training import checked_samples, training_part
from diffvqa.stages._video_store import VideoStore

from .. import extraction, scan, stage_two
from .clips import make_clips
from .figures import Measured, Panel, PartResult, Row, Target, seconds
from .measuring import in_turns
from .options import Options

_ALL_OF_IT = 2**50
_LIMIT, _KEPT, _READ = "tensors in memory (the limit)", "features in memory (the default)", "features read at each use"
_MIXERS = ("ours", "mambapy", "transformers")
_OF_MAMBAPY = 15.0


def measure(options: Options) -> PartResult:
    """Measure steps, epochs and scans."""
    steps = step_times(options)
    limit = steps.seconds_per_step(_LIMIT)
    against_limit = Panel(
        title=f"a training step: batches of {steps.batch_size}, {steps.videos} videos of the shipped "
        "model's shapes, one thread",
        columns=("features", "step", "of the limit"),
        rows=tuple(
            Row(name=name, cells=(found, found.over(limit)))
            for name in steps.found
            for found in (steps.seconds_per_step(name),)
        ),
        note="The limit is the same step of the same training on batches that were put together before it began. With "
        "features in memory another thread puts them together meanwhile; features that do not fit the memory are read.",
    )
    mixers = scans(options)
    return PartResult(
        panels=(against_limit, against_extracting(options, steps), mixers),
        targets=(
            Target(
                claim="step on features in memory, of the limit",
                measured=steps.seconds_per_step(_KEPT).over(limit),
                bound=1.15,
            ),
            Target(
                claim="scan, times as fast as mambapy",
                measured=_ratio_of(mixers, "mambapy"),
                bound=_OF_MAMBAPY,
                at_most=False,
            ),
        ),
    )


@dataclass(frozen=True)
class StepTimes:
    """Trainings of one split on features from several places, some of each, of so many steps, epochs and videos."""

    batch_size: int
    steps: int
    epochs: int
    videos: int
    found: dict[str, list[float]]

    def seconds_per_step(self, name: str) -> Measured:
        """Return the mean time of a step in each training."""
        return seconds([spent / self.steps for spent in self.found[name]]).times(1e3, "ms")

    def seconds_per_video(self) -> Measured:
        """Return what a video takes in one epoch, with the features in memory."""
        return seconds([spent / self.epochs / self.videos for spent in self.found[_KEPT]])


def step_times(options: Options) -> StepTimes:
    """Train one split in each way, in turns."""
    videos, epochs = (20, 1) if options.quick else (120, 2)
    settings = resolve_settings(None, {"runtime.runs": options.folder, "train.epochs": epochs, "train.splits": 1})
    stage_two.write_planted(options.folder, videos)
    labelled = load_labelled(["planted"], options.folder)
    by_id = checked_samples(labelled.samples)
    split = labelled.splits(settings.train)[0]
    parts = {
        limit: training_part(VideoStore(labelled, tuple(by_id), memory_limit=limit), by_id, split)
        for limit in (0, _ALL_OF_IT)
    }
    torch.set_num_threads(1)
    prepared: list[Any] = []
    _train(parts[_ALL_OF_IT], settings.train, _with_batches(lambda prepare, items: _recorded(prepare, items, prepared)))
    first_epoch = prepared[: len(prepared) // epochs]

    def from_memory(_prepare: object, items: Iterable[Any]) -> Iterator[Any]:
        return (batch for batch, _ in zip(first_epoch, items, strict=True))

    ways: dict[str, Callable[[], float]] = {
        _LIMIT: lambda: _train(parts[_ALL_OF_IT], settings.train, _with_batches(from_memory)).seconds,
        _KEPT: lambda: _train(parts[_ALL_OF_IT], settings.train, nullcontext()).seconds,
        _READ: lambda: _train(parts[0], settings.train, nullcontext()).seconds,
    }
    return StepTimes(settings.train.batch_size, len(prepared), epochs, len(split.train), in_turns(ways, options.rounds))


def _train(part: TrainingPart, recipe: TrainRecipe, batches: AbstractContextManager[object]) -> FittedRegressor:
    with batches:
        return fit_regressor(part, recipe, torch.device("cpu"))


def _with_batches(source: Callable[..., Iterator[Any]]) -> AbstractContextManager[object]:
    """Let trainings take their batches from somewhere else; everything else of them stays."""
    return mock.patch.object(fitting, "prefetched", source)


def _recorded(prepare: Callable[[Any], Any], items: Iterable[Any], into: list[Any]) -> Iterator[Any]:
    for item in items:
        into.append(prepare(item))
        yield into[-1]


def against_extracting(options: Options, steps: StepTimes) -> Panel:
    """Compare an epoch on kept features with one that extracts them anew."""
    videos, size, length = (1, "160x120", 1) if options.quick else (3, "960x540", 8)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        clips = make_clips(Path(folder) / "clips", videos, size=size, seconds=length)
        settings = resolve_settings(None, {"runtime.runs": Path(folder), **options.recipe})
        sources = [VideoSource(path.stem, path) for path in clips]
        spent = [extraction.timed_extraction(sources, settings).wall / videos for _ in range(options.rounds)]
    training = steps.seconds_per_video()
    both = seconds([one + other for one, other in zip(spent, training.values, strict=True)])
    return Panel(
        title=f"one epoch, per video; extraction of {videos} clips of {length} s, {size}",
        columns=("features", "time", "of kept features"),
        rows=(
            Row(name="kept in the cache", cells=(training, training.over(training))),
            Row(name="extracted in every epoch", cells=(both, both.over(training))),
        ),
    )


def scans(options: Options) -> Panel:
    """Compare Mamba mixers, forward and backward."""
    shape = scan.QUICK_SHAPES[0] if options.quick else scan.SHAPES[0]
    found = [scan.compare(shape, 2, full=options.quick) for _ in range(options.rounds)]
    times = {name: seconds([getattr(each, name).seconds for each in found]) for name in _MIXERS}
    memory = {
        name: Measured(values=tuple(max(1, getattr(each, name).bytes) / 2**20 for each in found), unit="MiB")
        for name in _MIXERS
    }
    return Panel(
        title=f"a Mamba mixer, forward and backward: batch, length, width {', '.join(map(str, shape))}; 2 threads",
        columns=("mixer", "time", "of ours", "memory", "of ours"),
        rows=tuple(
            Row(
                name=name,
                cells=(times[name], times[name].over(times["ours"]), memory[name], memory[name].over(memory["ours"])),
            )
            for name in _MIXERS
        ),
        note="transformers' fallback for the CPU is measured on one sequence of the batch and scaled by its own growth "
        "from one sequence to two.",
    )


def _ratio_of(mixers: Panel, name: str) -> Measured:
    ratio = next(row for row in mixers.rows if row.name == name).cells[1]
    if ratio is None:
        raise ValueError(name)
    return ratio
