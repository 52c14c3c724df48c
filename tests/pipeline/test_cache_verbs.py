"""``diffvqa cache`` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cache_material import SPECS, data_files, failed, fill, header, usable

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._cli import main


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A data set 'set' with features, in a folder of runs."""
    fill(tmp_path / "runs/set/features", usable("a", frames=2, crops=1), failed("bad"), usable("b"))
    return tmp_path / "runs"


@pytest.mark.parametrize("by", ["name", "path"])
def test_info_says_what_there_is_and_how_it_was_made(runs: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    name = "set" if by == "name" else str(runs / "set/features")
    assert main(["cache", "info", name, "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "2, 6 frames" in shown
    assert "1 empty" in shown
    assert header().fingerprint_digest in shown
    for spec in SPECS:
        assert spec.name in shown
    assert main(["cache", "info", name, "--json", "--runs", str(runs)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["videos"], document["frames"], document["failures"]) == (2, 6, {"empty": 1})
    files = (path for path in (runs / "set/features/shards").rglob("*") if path.is_file())
    assert document["bytes"] == sum(path.stat().st_size for path in files)
    assert [one["name"] for one in document["header"]["arrays"]] == [spec.name for spec in SPECS]


def test_verify_is_quiet_about_a_whole_cache_and_names_what_is_bad(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "verify", "set", "--runs", str(runs)]) == 0
    assert "2 videos" in capsys.readouterr().out
    assert main(["cache", "verify", "set", "--runs", str(runs), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    file = data_files(runs / "set/features", "crop/frames")[0]
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert main(["cache", "verify", "set", "--runs", str(runs)]) == 1
    shown = capsys.readouterr().out
    assert f"{file}: its bytes do not match their digests, array crop/frames, video(s) a" in shown
    assert "1 damaged file(s)" in shown
    assert main(["cache", "verify", "set", "--runs", str(runs), "--quiet"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{file}: ")
    assert main(["cache", "verify", "set", "--json", "--runs", str(runs)]) == 1
    (damage,) = json.loads(capsys.readouterr().out)["damages"]
    assert (damage["videos"], damage["arrays"]) == (["a"], ["crop/frames"])


def test_ls_lists_each_video_once_with_its_newest_row(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "bad.mp4"
    changed.write_bytes(b"mended")
    fill(runs / "set/features", usable("bad", path=changed), failed("new", reason="missing"))
    assert main(["cache", "ls", "set", "--runs", str(runs)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows] == [
        ["a", "ok", "2", "1"],
        ["b", "ok", "4", "2"],
        ["bad", "ok", "4", "2"],
        ["new", "missing", "", ""],
    ]
    assert main(["cache", "ls", "set", "--failed", "--json", "--runs", str(runs)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["reason"] == "missing"


def test_merge_joins_caches_and_says_so(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(runs / "other/features", usable("b"), usable("c"))
    out = tmp_path / "joined"
    assert main(["cache", "merge", "set", "other", "--out", str(out), "--runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "video(s) b: in several" in shown
    assert "3 shards copied, 0 were there, 3 videos in all" in shown
    assert set(FeatureCache(out).ids()) == {"a", "b", "c"}
    assert main(["cache", "merge", "set", "other", "--out", str(out), "--runs", str(runs), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    with CacheWriter(runs / "third/features", header(seed=5), shard_videos=1):
        pass
    assert main(["cache", "merge", "set", "third", "--out", str(out), "--runs", str(runs)]) == 2
    assert "seed is 5 there" in capsys.readouterr().err


def test_no_cache_and_a_damaged_header_are_one_clear_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("info", "verify", "ls"):
        assert main(["cache", verb, "nowhere", "--runs", str(runs)]) == 2
        assert "nowhere is no feature cache" in capsys.readouterr().err
    (runs / "set/features/cache.json").write_text("{}")
    assert main(["cache", "info", "set", "--runs", str(runs)]) == 2
    assert "cache.json is damaged" in capsys.readouterr().err
    assert main(["cache", "verify", "set", "--runs", str(runs)]) == 1
    assert "cache.json: its bytes do not match its digest" in capsys.readouterr().out


def test_a_place_that_nothing_speaks_to_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info", "gopher://old/features"]) == 2
    assert "gopher://old/features cannot be opened" in capsys.readouterr().err


def test_a_cache_that_lost_its_marks_is_empty(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mark in (runs / "set/features/shards").glob("*.json"):
        mark.unlink()
    assert main(["cache", "info", "set", "--runs", str(runs)]) == 0
    assert "0, 0 frames" in capsys.readouterr().out
    shutil.rmtree(runs / "set/features/shards")
    assert main(["cache", "ls", "set", "--runs", str(runs)]) == 0
