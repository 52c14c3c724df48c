"""Scoring one video from the command line: to its score, and where the time goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from diffvqa.pipeline._config import resolve_settings
from diffvqa.pipeline._extract import extract
from diffvqa.pipeline._train import train

from .clips import make_clips, write_dataset
from .figures import Panel, PartResult, Row, seconds
from .measuring import run_diffvqa, start_without_transformers
from .options import Options

_STAGES = f"{__package__}.score_stages"
_TRAINED_ON = 10
_CLIPS = {"8 s of 960x540": "960x540", "8 s of 1920x1080": "1920x1080"}


def measure(options: Options) -> PartResult:
    """Train a model, then score each clip in turns: as a user does, and stage by stage."""
    runs = options.folder / "runs"
    train_model(runs, options)
    start_without_transformers()
    clips = {
        name: make_clips(options.folder / size, 1, size=size)[0]
        for name, size in list(_CLIPS.items())[: 1 if options.quick else None]
    }
    walls: dict[str, list[float]] = {name: [] for name in clips}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in clips}
    for _ in range(options.rounds):
        for name, clip in clips.items():
            walls[name].append(run_diffvqa(["score", str(clip), "--model", "clips", "--runs", str(runs)]).wall)
            laps[name].append(stages(runs, clip))
    panel = Panel(
        title="one video, one process: 8 frames, 3 crops, nano, the regressor of one split",
        columns=("stage", *clips),
        rows=(
            *(
                Row(name=stage, cells=tuple(seconds([each[stage] for each in laps[name]]) for name in clips))
                for stage in laps[next(iter(clips))][0]
            ),
            Row(name="diffvqa score VIDEO, in all", cells=tuple(seconds(values) for values in walls.values())),
        ),
        note="The stages are measured in a program of their own, which imports and runs the same; both, as most "
        "users, without Transformers, which diffusers would import too where it is installed.",
    )
    return PartResult(panels=(panel,))


def train_model(runs: Path, options: Options) -> None:
    """Extract some small clips and train the regressor of one split on them."""
    write_dataset(runs, "clips", make_clips(options.folder / "clips", _TRAINED_ON, size="160x120", seconds=1))
    recipe = {**options.recipe, "train.splits": 1, "train.epochs": 1}
    settings = resolve_settings(None, {"runtime.runs": runs, **recipe})
    extract("clips", settings)
    train(["clips"], settings)


def stages(runs: Path, clip: Path) -> dict[str, float]:
    """Return the seconds of each stage of scoring a clip, in a fresh process."""
    command = [sys.executable, "-m", _STAGES, str(runs), "clips", str(clip)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    laps: dict[str, float] = json.loads(done.stdout)["laps"]
    return laps
