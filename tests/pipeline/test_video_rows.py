"""What an extraction records of each video: what was sampled, by which decoder, and what was wrong with its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeClip

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import VideoRow
from diffvqa.pipeline._cli import main

SMALL = ("extract.view_size=32", "extract.crops=1", "extract.grid=4", "runtime.workers=1")


@pytest.fixture
def rows(make_clip: MakeClip, tiny_model: Path, tmp_path: Path) -> dict[str, VideoRow]:
    """Rows of a whole, a cut and an open-ended video, at two frames per second, half of which must be good."""
    videos = tmp_path / "videos"
    videos.mkdir()
    whole = make_clip(
        "rows.mp4", "-frames:v", "60", "-c:v", "libx264", "-bf", "0", "-g", "5", "-movflags", "+faststart"
    )
    data = whole.read_bytes()
    (videos / "whole.mp4").write_bytes(data)
    (videos / "cut.mp4").write_bytes(data[: int(len(data) * 0.7)])
    (videos / "hardly.mp4").write_bytes(data[: int(len(data) * 0.3)])
    common = ["--runs", str(tmp_path / "runs")]
    assert main(["prepare", "folder", "--name", "odd", "--videos", str(videos), *common]) == 0
    recipe = [f"extract.model={tiny_model}", "extract.frames_per_second=2", "extract.good_frames=0.5", *SMALL]
    assignments = [part for setting in recipe for part in ("--set", setting)]
    assert main(["extract", "odd", *common, *assignments]) == 0
    cache = FeatureCache(tmp_path / "runs/odd/features")
    return {row.video_id: row for row in (*(cache[video_id].row for video_id in cache.ids()), *cache.failures())}


def test_rows_tell_what_was_sampled_and_what_was_wrong(rows: dict[str, VideoRow]) -> None:
    whole, cut, hardly = rows["whole.mp4"], rows["cut.mp4"], rows["hardly.mp4"]
    assert whole.status == cut.status == "ok"
    assert whole.frame_indices == (7, 22, 37, 52)
    assert whole.timestamps == pytest.approx([index * 1001 / 30000 for index in whole.frame_indices], abs=1e-4)
    assert whole.frame_rate == pytest.approx(30000 / 1001)
    assert whole.duration == pytest.approx(60 * 1001 / 30000)
    assert (whole.decoder.split()[0], whole.note, whole.substitutions) == ("decord", "", ())
    assert cut.frame_indices == whole.frame_indices[: len(cut.frame_indices)]
    assert cut.note == f"truncated: {len(cut.frame_indices)} of 4 frames"
    assert (hardly.status, hardly.reason) == ("failed", "truncated")
    assert "1 of 4 frames" in hardly.detail
