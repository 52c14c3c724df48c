"""How long stage two takes on a cache of KoNViD-1k's size, and against extracting again.

    python -m tests.benchmarks.stage_two              1,200 videos, 10 splits, default recipe; 8 GB of disk and memory
    python -m tests.benchmarks.stage_two --demo RUNS  retraining on the demo set, against extracting its features again
                                                      with one step and, scaled up from two videos, with 50
    python -m tests.benchmarks.stage_two --quick      the same as the first in small, in half a minute

The features are random but have the shapes of the small model's; a planted score moves some of their channels.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._config import Settings, resolve_settings
from diffvqa.pipeline._extract import extract
from diffvqa.pipeline._manifest import read_manifest, write_manifest
from diffvqa.pipeline._train import train

FRAMES, CROPS = 8, 3
SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "latent": ((48, 32, 32), "float16"),
    "multiscale": ((1024, 4, 4), "float16"),
    "frames": ((128, 128, 3), "uint8"),
}
VIEWS = {"resize": (FRAMES,), "crop": (FRAMES, CROPS)}


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 videos, 2 splits, 2 epochs")
    parser.add_argument("--demo", type=Path, metavar="RUNS", help="folder of runs with a prepared demo set")
    parser.add_argument("--videos", type=int, default=1200)
    arguments = parser.parse_args()
    console = Console()
    if arguments.demo:
        console.print(compare_with_extraction(arguments.demo))
    elif arguments.quick:
        console.print(time_training(60, {"train.splits": 2, "train.epochs": 2}))
    else:
        console.print(time_training(arguments.videos, {}))


def time_training(videos: int, options: dict[str, Any]) -> Table:
    """Make a cache of ``videos`` videos, train on it as ``diffvqa train`` does, and return what it took."""
    with tempfile.TemporaryDirectory() as folder:
        settings = resolve_settings(None, {"runtime.runs": Path(folder), **options})
        begun = time.perf_counter()
        size = write_planted(Path(folder), videos)
        made = time.perf_counter() - begun
        summary = train(["planted"], settings)
    table = Table(title=f"stage two: {videos} videos, {FRAMES} frames, {CROPS} crops, {settings.train.epochs} epochs")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("features", f"{size / 1e9:.1f} GB")
    table.add_row("making the features", f"{made:.0f} s")
    table.add_row("threads", str(torch.get_num_threads()))
    table.add_row(f"training {len(summary.result.splits)} splits, reading included", f"{summary.seconds:.0f} s")
    steps = sum(trained.fitted.seconds for trained in summary.result.splits)
    table.add_row("of that in training steps", f"{steps:.0f} s")
    table.add_row("waiting for data, of the steps", f"{summary.waited:.1%}")
    table.add_row("median SRCC of the planted score", f"{summary.result.median().srcc:.3f}")
    return table


def compare_with_extraction(runs: Path) -> Table:
    """Extract the demo set's features anew, train on them anew, and return both times and their ratio."""
    table = Table(title="the demo set: extracting its features against retraining on them")
    for heading in ("what", "seconds", "extracting takes in one step", "in 50 steps"):
        table.add_column(heading, justify="right")
    settings = resolve_settings(None, {"runtime.runs": runs})
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "features"
        begun = time.perf_counter()
        videos = extract("demo", settings, cache=cache).extracted
        one_step = time.perf_counter() - begun
        many_steps = seconds_per_video(settings, Path(folder)) * videos
        table.add_row("extract, one step", f"{one_step:.1f}", "", "")
        table.add_row("extract, 50 steps, from two videos", f"{many_steps:.0f}", "", "")
        for splits in (1, settings.train.splits):
            seconds, epoch = retraining(settings, splits, str(cache))
            for what, taken in ((f"train {splits} split(s)", seconds), (f"one epoch of {splits} split(s)", epoch)):
                ratios = (f"{extraction / taken:.1f} times as long" for extraction in (one_step, many_steps))
                table.add_row(what, f"{taken:.2f}", *ratios)
    return table


def seconds_per_video(settings: Settings, folder: Path) -> float:
    """Return what the demo set's videos take each when extracted in 50 steps: two of them, start-up left out."""
    trajectory = settings.extract.model_copy(update={"steps": 50, "start_timestep": 999})
    manifest = read_manifest(settings.runtime.runs / "demo")
    ends = []
    for count in (1, 3):
        runs = folder / f"{count} videos"
        write_manifest(runs / "demo", dataclasses.replace(manifest, rows=manifest.rows[:count]))
        chosen = settings.model_copy(
            update={"extract": trajectory, "runtime": settings.runtime.model_copy(update={"runs": runs})}
        )
        begun = time.perf_counter()
        extract("demo", chosen, cache=runs / "features")
        ends.append(time.perf_counter() - begun)
    return (ends[1] - ends[0]) / 2


def retraining(settings: Settings, splits: int, cache: str) -> tuple[float, float]:
    """Return the seconds that a training takes, and those that one epoch of it takes."""
    recipe = settings.train.model_copy(update={"splits": splits})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "demo").mkdir()
        for name in ("manifest.csv", "dataset.json"):
            (Path(folder) / "demo" / name).write_bytes((settings.runtime.runs / "demo" / name).read_bytes())
        runtime = settings.runtime.model_copy(update={"runs": Path(folder)})
        summary = train(["demo"], settings.model_copy(update={"train": recipe, "runtime": runtime}), cache=cache)
    steps = sum(trained.fitted.seconds for trained in summary.result.splits)
    return summary.seconds, steps / recipe.epochs


def write_planted(runs: Path, videos: int) -> int:
    """Write the data set ``planted``: manifest and features; return the bytes of the features."""
    scores = np.random.default_rng(0).permutation(np.linspace(1.0, 5.0, videos))
    rows = [f"v{number:05d},/nowhere,{score!r},content-{number}" for number, score in enumerate(scores.tolist())]
    (runs / "planted").mkdir()
    (runs / "planted/manifest.csv").write_text("\n".join(["video_id,path,score,group", *rows]) + "\n")
    size = 0
    with CacheWriter(runs / "planted/features", _header(), shard_videos=32) as writer:
        for number, arrays in enumerate(_planted_features(scores)):
            row = VideoRow(
                video_id=f"v{number:05d}",
                status="ok",
                source=SourceStamp.of(Path("absent")),
                frame_indices=tuple(range(FRAMES)),
                timestamps=tuple(map(float, range(FRAMES))),
            )
            size += sum(array.nbytes for array in arrays.values())
            writer.add(ShardEntry(row, arrays))
    return size


def _planted_features(scores: NDArray[np.float64]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield each video's arrays: noise that is drawn once and shifted, in which the score moves some channels."""
    rng = np.random.default_rng(1)
    noise = {
        f"{view}/{part}": rng.normal(size=(*leading, *shape)).astype(np.float16)
        if dtype == "float16"
        else rng.integers(0, 256, (*leading, *shape), np.uint8)
        for view, leading in VIEWS.items()
        for part, (shape, dtype) in SHAPES.items()
    }
    for score in scores:
        arrays = {name: np.roll(part, int(rng.integers(part.shape[-2])), axis=-2) for name, part in noise.items()}
        for view in VIEWS:
            arrays[f"{view}/latent"][..., :4, :, :] += np.float16(score - 3.0)
            arrays[f"{view}/multiscale"][..., :16, :, :] -= np.float16(score - 3.0)
        yield arrays


def _header() -> CacheHeader:
    specs = tuple(
        ArraySpec(
            name=f"{view}/{part}",
            dimensions=(*("frame", "crop")[: len(leading)], "a", "b", "c"),
            shape=(*leading, *shape),
            dtype=dtype,
            unit="1",
            value_range=None,
            description="random",
        )
        for view, leading in VIEWS.items()
        for part, (shape, dtype) in SHAPES.items()
    )
    fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION})
    return CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(fingerprint.fields),
        fingerprint_digest=fingerprint.digest,
        recipe={"model": "random"},
        arrays=specs,
        software={},
        created="2026-01-01T00:00:00+00:00",
    )


if __name__ == "__main__":
    main()
