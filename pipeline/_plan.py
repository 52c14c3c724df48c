"""``diffvqa plan``: what an extraction will take, before anyone spends it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options
from diffvqa.pipeline._tables import PlainTable

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._manifest import ManifestRow
    from diffvqa.pipeline._planning import Load, Probe, Schedule

DEVICES = (1, 8, 64)
_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction will take.

    Attributes:
        name: The data set's.
        load: What is to be done.
        probe: What was measured.
        schedules: The hours on each number of devices.
        decoders: Decode workers beside each device.
    """

    name: str
    load: Load
    probe: Probe
    schedules: tuple[Schedule, ...]
    decoders: int

    def table(self) -> PlainTable:
        """Return the hours of each stage."""
        headings = ("devices", "compute h", "decode h", "write h", "takes h", "bottleneck", "videos/h")
        rows = tuple(
            (
                str(each.devices),
                *(f"{each.hours[stage]:.3g}" for stage in ("compute", "decode", "write")),
                f"{each.total_hours:.3g}",
                each.bottleneck,
                f"{self.load.videos / each.total_hours:,.0f}" if each.total_hours else "",
            )
            for each in self.schedules
        )
        return PlainTable((headings,), rows)

    def as_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "dataset": self.name,
            "videos": self.load.videos,
            "views_per_video": self.load.views,
            "shards": self.load.shards,
            "stored_bytes": self.load.stored_bytes,
            "source_bytes": self.load.source_bytes,
            "flops": self.load.videos * self.load.views * self.probe.view_flops,
            "probe": asdict(self.probe),
            "decoders_per_device": self.decoders,
            "schedules": [
                {
                    "devices": each.devices,
                    "hours": each.hours,
                    "total_hours": each.total_hours,
                    "bottleneck": each.bottleneck,
                }
                for each in self.schedules
            ],
        }


def plan(
    name: str,
    settings: Settings,
    *,
    probe: int = 3,
    devices: Sequence[int] = DEVICES,
    videos: int | None = None,
    tflops: float | None = None,
) -> ExtractionPlan:
    """Measure a few videos of a data set and reckon what all of them will take.

    Args:
        name: Of a prepared data set.
        settings: Recipe and runtime, as they will be given to ``extract``.
        probe: Videos to measure, spread over the manifest.
        devices: Numbers of devices to reckon for.
        videos: Reckon for this many videos like those of the data set; None for as many as it has.
        tflops: Reckon with a device that does so many million million operations a second, as it really does them, in
            the place of the one at hand.

    Raises:
        DatasetError: The data set is not prepared, or none of the videos tried can be used.
        ModelFolderError: The model cannot be loaded.
        CacheUnreachableError: The videos lie at a URL whose server does not answer.
    """
    from diffvqa.cache._layout import video_length
    from diffvqa.cache._source_files import file_location
    from diffvqa.pipeline._manifest import read_manifest
    from diffvqa.pipeline._planning import Load, schedules
    from diffvqa.pipeline._probing import measure
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.stages._decoding import VideoSource

    run = DatasetRun(settings.runtime.runs, name).require_prepared()
    rows = read_manifest(run.folder).rows
    chosen = _spread(rows, probe)
    sources = [VideoSource(row.video_id, file_location(row.location)) for row in chosen]
    measured, header = measure(sources, settings)
    if tflops is not None:
        device = f"a device of {tflops:g} TFLOP/s"
        measured = replace(measured, device=device, view_seconds=measured.view_flops / (tflops * _TERA))
    recipe, count = settings.extract, videos or len(rows)
    load = Load(
        videos=count,
        views=recipe.frames * (1 + recipe.crops),
        shard_videos=settings.runtime.shard_videos,
        video_bytes=sum(video_length(spec) for spec in header.arrays),
        source_bytes=int(_bytes_of(rows) * count / max(1, len(rows))),
    )
    on_ray = settings.runtime.engine == "ray"
    decoders = settings.runtime.ray_decoders if on_ray else settings.runtime.workers
    hours = schedules(load, measured, devices=devices, decoders=decoders)
    return ExtractionPlan(name, load, measured, hours, decoders)


def _spread(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """Return up to ``count`` rows at equal distances."""
    count = min(count, len(rows))
    return [rows[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]


def _bytes_of(rows: Sequence[ManifestRow]) -> int:
    from diffvqa.cache._source_files import is_url, look_up_all

    total = sum(
        found.size for found in look_up_all(row.location for row in rows if is_url(row.location)).values() if found
    )
    for row in rows:
        if is_url(row.location):
            continue
        try:
            total += os.stat(row.location).st_size  # noqa: PTH116  # making a Path of each of 100,000 takes longer
        except OSError:
            continue
    return total


def command(
    name: Annotated[str, typer.Argument(help="A prepared data set.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", help="As for extract (default: nano).", show_default=False)
    ] = None,
    probe: Annotated[int, typer.Option("--probe", min=1, help="Videos to measure.")] = 3,
    devices: Annotated[
        list[int] | None,
        typer.Option("--devices", min=1, help="Number of devices; may be repeated (default: 1, 8 and 64)."),
    ] = None,
    videos: Annotated[
        int | None, typer.Option("--videos", min=1, help="Reckon for so many videos (default: all of the data set).")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option("--tflops", min=1e-6, help="Reckon with a device that does so many TFLOP/s (default: this one)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    device: options.Device = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Say what an extraction will take: shards, bytes, operations, and hours on 1, 8 and 64 devices."""
    chosen = {"extract.model": model, "runtime.device": device, "runtime.runs": runs}
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    planned = plan(name, settings, probe=probe, devices=devices or DEVICES, videos=videos, tflops=tflops)
    if as_json:
        typer.echo(json.dumps(planned.as_json(), indent=2))
        return
    load, measured = planned.load, planned.probe
    flops = load.videos * load.views * measured.view_flops
    typer.echo(f"{name}: {load.videos:,} videos of {load.views} views, {load.shards:,} shards of {load.shard_videos}")
    typer.echo(
        f"features: {load.stored_bytes / _GIGA:,.2f} GB ({load.video_bytes / 1e6:.2f} MB per video); "
        f"videos: {load.source_bytes / _GIGA:,.2f} GB"
    )
    reckoned = ", reckoned from one and two steps" if measured.is_extrapolated else ""
    typer.echo(f"operations: {flops / _TERA:,.4g} TFLOP ({measured.view_flops / _TERA:.4g} per view{reckoned})")
    typer.echo(
        f"measured on {measured.videos} video(s), {measured.failed} of them unusable: a view takes "
        f"{measured.view_seconds * 1e3:.4g} ms on {measured.device} ({measured.flops_per_second / _TERA:.3g} TFLOP/s), "
        f"decoding {measured.decode_seconds:.3g} s, writing {measured.write_seconds * 1e3:.3g} ms per video"
    )
    typer.echo("")
    typer.echo(planned.table().to_text(), nl=False)
    typer.echo(f"each device with {planned.decoders} decode worker(s); stages overlap, so the longest decides")
    if load.shards < 2 * max(each.devices for each in planned.schedules):
        typer.echo("few shards for so many devices: a smaller runtime.shard_videos shares them out better")
