"""Videos in an S3 bucket: prepared, planned and extracted as those of a folder are, also from an unreliable server."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from cache_material import digests
from conftest import MakeClip
from unreliable_s3 import SHARES, Unreliable, put, unreliable_server

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import VideoRow
from diffvqa.cache._verify import verify
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._manifest import read_manifest

CLIPS = 6
FROM_S3 = "s3://bucket/videos"


@pytest.fixture(scope="module")
def server() -> Iterator[Unreliable]:
    with unreliable_server() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_clip: MakeClip, server: Unreliable) -> Path:
    """Clips in two folders, one that is none, what is hidden and what is no video; in the bucket too."""
    folder = tmp_path_factory.mktemp("material") / "videos"
    (folder / "two words").mkdir(parents=True)
    for number in range(CLIPS):
        clip = make_clip(f"url-{number}.mp4", "-ss", str(number / 4), "-frames:v", "8")
        shutil.copy(clip, folder / ("two words" if number % 2 else "") / f"v{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / ".hidden.mp4").write_bytes(b"hidden")
    (folder / "readme.txt").write_text("no video")
    for path in folder.rglob("*"):
        if path.is_file():
            put("bucket", f"videos/{path.relative_to(folder).as_posix()}", path.read_bytes())
    assert server.is_reliable
    return folder


@pytest.fixture(scope="module")
def label_file(folder: Path) -> Path:
    names = [*(f"v{number}" for number in range(CLIPS)), "broken.mp4", "gone.mp4"]
    path = folder.parent / "labels.csv"
    path.write_text("video,score\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    return path


def prepare(runs: Path, name: str, videos: str, label_file: Path) -> None:
    common = ["--name", name, "--videos", videos, "--runs", str(runs)]
    assert main(["prepare", "csv", *common, "--labels", str(label_file)]) == 0


def extract(runs: Path, settings_file: Path, name: str, *options: str) -> int:
    chosen = ["--config", str(settings_file), "--set", "runtime.threads=1", "--set", "runtime.shard_videos=3"]
    return main(["extract", name, "--runs", str(runs), *chosen, *options])


def rows_of(location: Path | str) -> dict[str, VideoRow]:
    cache = FeatureCache(location)
    return {row.video_id: row for row in (*(cache[each].row for each in cache.ids()), *cache.failures())}


def nothing_is_left() -> bool:
    return not list(Path(tempfile.gettempdir()).glob(f"diffvqa-scratch-{os.getpid()}-video-*"))


def test_a_whole_extraction_from_a_bucket_into_a_bucket_is_that_of_a_folder(
    tmp_path: Path, server: Unreliable, folder: Path, label_file: Path, settings_file: Path
) -> None:
    """The server fails, is slow and drops connections; two processes with a model each work side by side."""
    prepare(tmp_path, "here", str(folder), label_file)
    assert extract(tmp_path, settings_file, "here") == 0
    server.troubles.clear()
    server.is_reliable = False
    prepare(tmp_path, "there", FROM_S3, label_file)
    cache = "s3://bucket/features"
    two_workers = ("--set", "runtime.model_workers=2", "--set", "runtime.workers=2")
    assert extract(tmp_path, settings_file, "there", "--cache", cache, *two_workers) == 0
    server.is_reliable = True
    assert set(server.troubles) == set(SHARES)
    manifests = [read_manifest(tmp_path / name) for name in ("here", "there")]
    assert [(row.video_id, row.score) for row in manifests[0].rows] == [
        (row.video_id, row.score) for row in manifests[1].rows
    ]
    assert {row.location for row in manifests[1].rows} == {f"{FROM_S3}/{row.video_id}" for row in manifests[1].rows}
    assert len(digests(cache)) == CLIPS
    assert digests(cache) == digests(tmp_path / "here/features")
    assert verify(cache).damages == ()
    here, there = rows_of(tmp_path / "here/features"), rows_of(cache)
    assert {each: (row.reason, row.source.sha256) for each, row in there.items()} == {
        each: (row.reason, row.source.sha256) for each, row in here.items()
    }
    assert (there["broken.mp4"].reason, there["gone.mp4"].reason) == ("unreadable", "missing")
    assert there["v0.mp4"].source.path == f"{FROM_S3}/v0.mp4"
    assert there["v0.mp4"].source.etag
    assert nothing_is_left()


@pytest.mark.usefixtures("server")
def test_what_changed_in_the_bucket_is_done_again_and_nothing_else(
    tmp_path: Path, folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "folder", "--name", "set", "--videos", f"{FROM_S3}/", "--runs", str(tmp_path)]) == 0
    assert {row.video_id for row in read_manifest(tmp_path / "set").rows} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("[vb]*.mp4")
    }

    def done() -> tuple[int, int, int]:
        capsys.readouterr()
        assert extract(tmp_path, settings_file, "set", "--json") == 0
        summary = json.loads(capsys.readouterr().out)
        return summary["extracted"], summary["done_before"], summary["failed"]

    assert done() == (CLIPS, 0, 1)
    time.sleep(1.1)  # times of modification are whole seconds
    put("bucket", "videos/v0.mp4", (folder / "v0.mp4").read_bytes())
    assert done() == (0, CLIPS, 1)
    before = digests(tmp_path / "set/features")
    put("bucket", "videos/v0.mp4", (folder / "v2.mp4").read_bytes())
    assert done() == (1, CLIPS - 1, 1)
    changed = {each for each, digest in digests(tmp_path / "set/features").items() if digest != before[each]}
    assert changed == {"v0.mp4"}
    boto3.client("s3").delete_object(Bucket="bucket", Key="videos/v0.mp4")
    assert done() == (0, CLIPS, 1)
    put("bucket", "videos/v0.mp4", (folder / "v0.mp4").read_bytes())


def test_a_video_that_cannot_be_fetched_is_a_row_and_is_tried_again(
    tmp_path: Path, server: Unreliable, folder: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    lines = [f"{path.name},{FROM_S3}/{path.name}" for path in sorted(folder.glob("v*.mp4"))]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.csv").write_text("\n".join(["video_id,path", *lines]))
    server.broken = "videos/v2.mp4"
    try:
        assert extract(tmp_path, settings_file, "set") == 0
    finally:
        server.broken = ""
    (failed,) = FeatureCache(tmp_path / "set/features").failures()
    assert (failed.video_id, failed.reason) == ("v2.mp4", "unreachable")
    assert f"{FROM_S3}/v2.mp4 cannot be read: " in failed.detail
    assert extract(tmp_path, settings_file, "set") == 0
    assert FeatureCache(tmp_path / "set/features").failures() == ()
    assert nothing_is_left()


@pytest.mark.usefixtures("server")
def test_a_plan_counts_and_measures_what_lies_in_the_bucket(
    tmp_path: Path, folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "folder", "--name", "set", "--videos", FROM_S3, "--runs", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["plan", "set", "--runs", str(tmp_path), "--config", str(settings_file), "--probe", "2", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["source_bytes"] == sum(path.stat().st_size for path in folder.rglob("[vb]*.mp4"))
    assert planned["probe"]["failed"] == 0
