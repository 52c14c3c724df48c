"""A data set whose report has everything in it, names that try to break out of the page included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stage_two_material import RECIPE, Material, make_material, write_dataset

from diffvqa.cache._schema import SourceStamp, VideoRow, read_header
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._storage import open_storage
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._cli import main
from diffvqa.stages import _train_recipe as train_recipe
from diffvqa.stages._training_data import VideoSample

HOSTILE = "<img src=x onerror=document.title='owned'>"
VERSIONS = ("pristine", "blur-2", "blur-4", "h264-crf28")
SMALL = [f"--set=train.{key}={getattr(RECIPE, key)}" for key in ("width", "tcab_patch", "tcab_width", "tcab_state")]
SMALL += ["--set=train.head_width=8", "--set=train.batch_size=4", "--splits", "2", "--epochs", "2"]


def write_reported(runs: Path, name: str = "shown") -> None:
    """Write a data set of five contents in four versions each with a model, two failures, an ablation and a test."""
    data = make_material(20, frames=2)
    ids = [f"{HOSTILE if content == 0 else content}/{version}.mp4" for content in range(5) for version in VERSIONS]
    samples = [
        VideoSample(video_id, 90.0 - 10 * (number % 4) - number, video_id.rpartition("/")[0])
        for number, video_id in enumerate(ids)
    ]
    write_dataset(runs, name, Material(dict(zip(ids, data.features.values(), strict=True)), samples))
    features = runs / name / "features"
    with CacheWriter(features, read_header(open_storage(features)), shard_videos=8) as writer:
        for video_id in ("<script>gone</script>.mp4", "torn.mp4"):
            stamp = SourceStamp.of(Path("absent"))
            row = VideoRow(video_id=video_id, status="failed", reason="missing", detail=f"{HOSTILE} is", source=stamp)
            writer.add(ShardEntry(row, None))
    assert main(["train", name, "--runs", str(runs), *SMALL]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_recipe, "ablations", lambda recipe: {"full": recipe, HOSTILE: recipe})
        assert main(["train", name, "--runs", str(runs), "--ablate", *SMALL, "--splits", "1", "--epochs", "1"]) == 0
    evaluation = runs / name / "evaluation.json"
    assert main(["evaluate", "--model", name, "--on", name, "--runs", str(runs), "--json", str(evaluation)]) == 0
    rows = json.loads(evaluation.read_text())
    rows[0]["on"] = HOSTILE
    evaluation.write_text(json.dumps(rows))
