"""What a plan says, against the extraction itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClip
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._config import resolve_settings
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._extract import extract
from diffvqa.pipeline._manifest import Manifest, ManifestRow, write_manifest
from diffvqa.pipeline._plan import plan
from diffvqa.pipeline._planning import Load, Probe, schedules

PROBE = Probe(
    videos=3,
    failed=0,
    decode_seconds=1.0,
    view_seconds=0.5,
    view_flops=1e12,
    write_seconds=0.1,
    device="cpu",
    batch=8,
    is_extrapolated=False,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_clip: MakeClip) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    clips = [make_clip(f"plan-{number}.mp4", "-ss", str(number / 2), "-t", "1") for number in range(3)]
    rows = tuple(ManifestRow(clip.name, str(clip), None, "") for clip in clips)
    write_manifest(runs / "set", Manifest("set", rows))
    write_manifest(runs / "gone", Manifest("gone", (ManifestRow("a", "/nowhere/a.mp4", None, ""),)))
    return runs


def settings_file(runs: Path, tiny_model: Path, **extract: Any) -> Path:
    chosen = {"frames": 2, "view_size": 32, "crops": 2, "grid": 4, **extract}
    lines = [f'model = "{tiny_model}"', *(f"{name} = {value}" for name, value in chosen.items())]
    path = runs / "settings.toml"
    path.write_text("[extract]\n" + "\n".join(lines) + "\n[runtime]\nshard_videos = 2\nworkers = 1\n")
    return path


def test_bytes_and_shards_are_those_that_extraction_makes(runs: Path, tiny_model: Path) -> None:
    settings = resolve_settings(settings_file(runs, tiny_model), {"runtime.runs": runs})
    planned = plan("set", settings, probe=2, devices=(1, 2))
    extract("set", settings)
    info = FeatureCache(runs / "set" / "features").info()
    assert planned.load.shards == info.shards == 2
    assert planned.load.views == 6
    # The rest is marks, indices of arrays and metadata.
    assert planned.load.stored_bytes < info.size < planned.load.stored_bytes + 60_000
    assert planned.load.source_bytes == sum(path.stat().st_size for path in _clips(runs))
    assert planned.probe.view_flops > 1e6
    assert min(planned.probe.view_seconds, planned.probe.decode_seconds, planned.probe.write_seconds) > 0


def _clips(runs: Path) -> list[Path]:
    import csv

    with (runs / "set" / "manifest.csv").open(newline="") as file:
        return [Path(row["path"]) for row in csv.DictReader(file)]


def test_operations_of_many_steps_are_those_that_are_counted(runs: Path, tiny_model: Path) -> None:
    """A trajectory of two steps is counted whole; one of four is reckoned, and grows by the same each step."""
    flops = {}
    for steps in (1, 2, 4):
        file = settings_file(runs, tiny_model, steps=steps, start_timestep=500)
        planned = plan("set", resolve_settings(file, {"runtime.runs": runs}), probe=1)
        flops[steps] = planned.probe.view_flops
        assert planned.probe.is_extrapolated == (steps == 4)
    assert flops[4] == pytest.approx(flops[2] + 2 * (flops[2] - flops[1]))
    assert flops[2] > flops[1]


def test_the_verb_prints_what_it_reckoned(runs: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = settings_file(runs, tiny_model)
    command = ["plan", "set", "--runs", str(runs), "--config", str(file), "--probe", "1"]
    assert main([*command, "--videos", "1000", "--tflops", "100"]) == 0
    shown = capsys.readouterr().out
    assert "1,000 videos of 6 views, 500 shards of 2" in shown
    assert "a device of 100 TFLOP/s (100 TFLOP/s)" in shown
    assert [line.split()[0] for line in shown.splitlines() if line[:1].isdigit()] == ["1", "8", "64"]
    assert main([*command, "--json", "--devices", "4"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["videos"] == 3
    assert [each["devices"] for each in figures["schedules"]] == [4]
    assert figures["flops"] == 3 * 6 * figures["probe"]["view_flops"]


def test_a_data_set_without_a_usable_video_is_a_clear_error(runs: Path, tiny_model: Path) -> None:
    settings = resolve_settings(settings_file(runs, tiny_model), {"runtime.runs": runs})
    with pytest.raises(DatasetError, match="None of the 1 videos that were tried can be used"):
        plan("gone", settings)


@given(videos=st.integers(1, 10**6), shard=st.integers(1, 64), devices=st.integers(1, 128), decoders=st.integers(1, 8))
def test_more_devices_never_take_longer_and_never_less_than_their_share(
    videos: int, shard: int, devices: int, decoders: int
) -> None:
    load = Load(videos=videos, views=32, shard_videos=shard, video_bytes=10, source_bytes=0)
    one, many = schedules(load, PROBE, devices=(1, devices), decoders=decoders)
    assert one.total_hours == pytest.approx(videos * 32 * 0.5 / 3600)
    assert one.bottleneck == "compute"
    assert one.total_hours / devices <= many.total_hours * (1 + 1e-9)
    assert many.total_hours <= one.total_hours * (1 + 1e-9)
    assert many.hours["decode"] == pytest.approx(many.hours["compute"] / 16 / decoders)
