"""How fast stage one is, where its time goes, and how much of it overlaps.

    python -m tests.benchmarks.extraction                        nano, 24 clips of 960 x 540 made by ffmpeg
    python -m tests.benchmarks.extraction --runs RUNS --name demo --videos 32   videos of a prepared data set
    python -m tests.benchmarks.extraction --model PATH --set extract.view_size=512 --set extract.precision=bfloat16
    python -m tests.benchmarks.extraction --quick                4 small clips, some seconds

It runs each part alone on the same videos, then the whole as ``diffvqa extract`` does:

* **decode**: the decode processes alone, their start included;
* **model**: the networks alone over the decoded views, in full batches; on a GPU timed by its own events;
* **write**: hashing the videos and writing the shards alone;
* **extraction**: all of it, the loading of the model left out.

The target on a CPU: extraction takes at most 1.15 times the CPU seconds of decode and model, spread over all cores; on
a GPU: at most 1.10 times pure model time. Timings of a machine that is busy otherwise say little; CPU seconds say more.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from diffvqa.cache._schema import SourceStamp
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline import _backbone
from diffvqa.pipeline._backbone import Backbone, choose_device, load_backbone
from diffvqa.pipeline._cache_rows import cache_header, shard_entry
from diffvqa.pipeline._config import Settings, parse_assignment, resolve_settings
from diffvqa.pipeline._extract import extract
from diffvqa.pipeline._ffmpeg import find_ffmpeg
from diffvqa.pipeline._manifest import read_manifest
from diffvqa.pipeline._waiting import wait_without_spinning
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, VideoSource
from diffvqa.stages._extraction import extract_unit
from diffvqa.stages._view_extractor import ViewExtractor

_NAME = "benchmark"
_PEAK_SIDE = {"cpu": 2048, "cuda": 8192}
_PEAK_TRIES = 5

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a part took.

    Attributes:
        wall: Seconds of the wall clock.
        cpu: CPU seconds of this process and of the decode processes.
        device: Seconds that the GPU was at work; 0 on a CPU.
    """

    wall: float
    cpu: float
    device: float = 0.0


@dataclass(frozen=True)
class Costs:
    """What each part took, and the whole."""

    decode: Cost
    model: Cost
    write: Cost
    whole: Cost
    frames: int
    views: int
    flops_per_view: float
    peak: float


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 clips of 160 x 120")
    parser.add_argument("--runs", type=Path, help="folder of runs with a prepared data set")
    parser.add_argument("--name", default="demo", help="of the data set")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change one setting")
    arguments = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # as extract does, and before torch, which is here already, looks at it
        wait_without_spinning()
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks.extraction", *sys.argv[1:]])  # noqa: S606
    count = 4 if arguments.quick else arguments.videos
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        if arguments.runs:
            rows = read_manifest(arguments.runs / arguments.name).rows
            paths = [Path(row.location) for row in rows[:: max(1, len(rows) // count)]][:count]
        else:
            paths = make_clips(runs / "clips", count, "160x120" if arguments.quick else "960x540")
        options = {"extract.model": arguments.model, "runtime.runs": str(runs)}
        settings = resolve_settings(None, {**options, **dict(map(parse_assignment, arguments.set))})
        Console().print(table_of(measure(paths, settings)[0], settings, str(arguments.model)))


def make_clips(folder: Path, count: int, size: str) -> list[Path]:
    """Encode clips of four seconds of a moving test picture, each of its own."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        picture = f"testsrc2=size={size}:rate=30:duration=4,hue=h={7 * number}"
        encoding = ["-pix_fmt", "yuv420p", "-preset", "veryfast", "-crf", "28"]
        find_ffmpeg().run(["-f", "lavfi", "-i", picture, *encoding, str(path)], purpose="clips to extract")
    return paths


def measure(paths: Sequence[Path], settings: Settings, rounds: int = 1) -> list[Costs]:
    """Run each part alone, then the whole, in every round."""
    sources = [VideoSource(f"{number}-{path.name}", path) for number, path in enumerate(paths)]
    backbone = load_backbone(settings.extract, settings.runtime)
    views = np.concatenate([_views_of(video) for video in decode_all(sources, settings)])
    backbone.extractor(views[: backbone.extractor.batch_size(views.shape[1])], range(len(views)))  # what is made once
    flops = count_flops(backbone.extractor, views)
    return [_measure_once(sources, settings, backbone, flops) for _ in range(rounds)]


def _measure_once(sources: Sequence[VideoSource], settings: Settings, backbone: Backbone, flops: float) -> Costs:
    device = choose_device(settings.runtime.device)
    decoded, decode = timed(lambda: decode_all(sources, settings))
    views = np.concatenate([_views_of(video) for video in decoded])
    return Costs(
        decode=decode,
        model=timed_model(backbone.extractor, views, device),
        write=timed_writing(decoded, backbone, settings),
        whole=timed_extraction(sources, settings),
        frames=sum(len(video.resize) for video in decoded),
        views=len(views),
        flops_per_view=flops,
        peak=matrix_product_peak(device, getattr(torch, settings.extract.precision)),
    )


def decode_all(sources: Sequence[VideoSource], settings: Settings) -> list[DecodedVideo]:
    """Decode the videos as an extraction does, with nothing else to do."""
    runtime = settings.runtime
    with DecodePool(settings.extract, workers=runtime.workers, timeout=runtime.decode_timeout) as pool:
        return [video for video in pool.run(sources) if isinstance(video, DecodedVideo)]


def timed_model(extractor: ViewExtractor, views: NDArray[np.uint8], device: torch.device) -> Cost:
    """Run the networks over all views, batch after batch."""
    if device.type != "cuda":
        return timed(lambda: extractor(views, range(len(views))))[1]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    begin.record()
    _, cost = timed(lambda: extractor(views, range(len(views))))
    end.record()
    torch.cuda.synchronize(device)
    return Cost(cost.wall, cost.cpu, begin.elapsed_time(end) / 1000)


def timed_writing(decoded: Sequence[DecodedVideo], backbone: Backbone, settings: Settings) -> Cost:
    """Hash the videos and write their features; some videos' features stand for those of all."""
    few = decoded[:8]
    extracted = list(extract_unit(few, backbone.extractor, settings.extract))
    stamps = {video.source.video_id: SourceStamp.of(video.source.path) for video in few}
    header = cache_header(settings.extract, backbone)

    def write() -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=settings.runtime.runs))
            cache = stack.enter_context(CacheWriter(Path(folder) / "cache", header, shard_videos=len(few)))
            for result in extracted:
                cache.add(shard_entry(result, stamps))

    _, cost = timed(write)
    share = len(decoded) / len(few)
    return Cost(cost.wall * share, cost.cpu * share)


def timed_extraction(sources: Sequence[VideoSource], settings: Settings) -> Cost:
    """Extract as ``diffvqa extract`` does, and take off what loading the model took."""
    folder = settings.runtime.runs / _NAME
    folder.mkdir()
    lines = ["video_id,path", *(f"{source.video_id},{source.path.resolve()}" for source in sources)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    loadings: list[Cost] = []

    def load(*arguments: Any) -> Backbone:
        backbone, cost = timed(lambda: load_backbone(*arguments))
        loadings.append(cost)
        return backbone

    with mock.patch.object(_backbone, "load_backbone", load):
        _, whole = timed(lambda: extract(_NAME, settings))
    shutil.rmtree(folder)
    return Cost(whole.wall - sum(cost.wall for cost in loadings), whole.cpu - sum(cost.cpu for cost in loadings))


def timed(work: Callable[[], Result]) -> tuple[Result, Cost]:
    """Do some work, and return its result and what it took; child processes count once they are gone."""
    begun, cpu = time.perf_counter(), _cpu_seconds()
    result = work()
    return result, Cost(time.perf_counter() - begun, _cpu_seconds() - cpu)


def count_flops(extractor: ViewExtractor, views: NDArray[np.uint8]) -> float:
    """Return the floating-point operations of one view, products and convolutions alone."""
    with FlopCounterMode(display=False) as counter:
        extractor(views[:1], [0])
    return float(counter.get_total_flops())


def matrix_product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the most floating-point operations per second that a product of large square matrices reaches."""
    side = _PEAK_SIDE.get(device.type, 2048)
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(_PEAK_TRIES):
        begun = time.perf_counter()
        one @ other
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * side**3 / fastest


def table_of(costs: Costs, settings: Settings, model: str) -> Table:
    """Return the figures, as times and as ratios."""
    recipe, cores = settings.extract, len(os.sched_getaffinity(0))
    pure = costs.model.device or costs.model.wall
    title = (
        f"{model}: {costs.frames} frames, {costs.views} views of {recipe.view_size} px, {recipe.steps} step(s), "
        f"{recipe.precision}; {cores} cores, {torch.get_num_threads()} threads, {settings.runtime.workers} decoders"
    )
    table = Table("part", "wall s", "CPU s", "share of CPU", title=title, title_justify="left")
    parts = {"decode": costs.decode, "model": costs.model, "write": costs.write}
    sum_of_parts = sum(cost.cpu for cost in parts.values())
    for name, cost in parts.items():
        table.add_row(name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.cpu / sum_of_parts:.0%}")
    table.add_row("extraction", f"{costs.whole.wall:.2f}", f"{costs.whole.cpu:.2f}", "")
    table.add_section()
    busy = (costs.decode.cpu + costs.model.cpu) / cores
    figures = {
        "frames per second": f"{costs.frames / costs.whole.wall:.1f}",
        "GFLOP per view": f"{costs.flops_per_view / 1e9:.2f}",
        "measured matrix-product peak, GFLOP/s": f"{costs.peak / 1e9:.0f}",
        "model alone, share of that peak": f"{costs.flops_per_view * costs.views / pure / costs.peak:.0%}",
        "extraction, wall / wall of all cores busy (target 1.15)": f"{costs.whole.wall / busy:.2f}",
        "extraction, wall / pure model time (GPU target 1.10)": f"{costs.whole.wall / pure:.2f}",
        "extraction, CPU / CPU of its parts": f"{costs.whole.cpu / sum_of_parts:.2f}",
    }
    for name, figure in figures.items():
        table.add_row(name, figure, "", "")
    return table


def _views_of(video: DecodedVideo) -> NDArray[np.uint8]:
    return np.concatenate([video.resize, video.crop.reshape(-1, *video.crop.shape[2:])])


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
