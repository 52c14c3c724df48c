from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cache_material import failed, fill, header, mark_files, usable

from diffvqa.cache._errors import CacheBusyError, CacheError, FingerprintMismatchError, OutputError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SourceStamp
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter


def test_the_plan_leaves_out_what_is_done_and_what_failed(tmp_path: Path) -> None:
    fill(tmp_path, usable("done"), failed("broken"))
    sources = [(name, Path("absent")) for name in ("new", "done", "broken")]
    with CacheWriter(tmp_path, header(), shard_videos=2) as writer:
        plan = writer.plan(sources)
        assert plan.pending == ("new",)
        assert plan.done == ("done",)
        assert [row.video_id for row in plan.failed_before] == ["broken"]
        retry = writer.plan(sources, retry_failed=True)
        assert retry.pending == ("new", "broken")
        assert writer.plan([("new", Path("absent"))]).vanished == ("done", "broken")


def test_a_file_that_changed_since_is_done_again_and_the_newer_row_counts(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"first")
    directory = tmp_path / "cache"
    fill(directory, usable("v", frames=1, path=video))
    with CacheWriter(directory, header(), shard_videos=1) as writer:
        assert writer.plan([("v", video)]).done == ("v",)
    video.write_bytes(b"second version")
    with CacheWriter(directory, header(), shard_videos=1) as writer:
        plan = writer.plan([("v", video)])
        assert plan.pending == plan.changed == ("v",)
        writer.add(usable("v", frames=3, path=video))
    cache = FeatureCache(directory)
    assert cache.ids() == ("v",)
    assert len(cache["v"]["resize/latent"]) == 3


def test_other_features_are_refused_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    with pytest.raises(FingerprintMismatchError, match=r"seed is \(absent\) there, 5 was asked for.*--overwrite"):
        CacheWriter(tmp_path, header(seed=5), shard_videos=1).__enter__()
    with CacheWriter(tmp_path, header(seed=5), shard_videos=1, overwrite=True):
        pass
    assert FeatureCache(tmp_path).ids() == ()
    assert FeatureCache(tmp_path).header.fingerprint["seed"] == 5


@pytest.mark.parametrize("step", ["write_header", "remove_unmarked"])
def test_replacing_features_that_is_cut_short_never_mixes_the_old_with_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fill(tmp_path, usable("old"))

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(f"diffvqa.cache._writer.{step}", die)
        with pytest.raises(SystemExit):
            CacheWriter(tmp_path, header(seed=5), shard_videos=1, overwrite=True).__enter__()
    with CacheWriter(tmp_path, header(seed=5), shard_videos=1, overwrite=step == "write_header") as writer:
        assert writer.plan([("old", Path("absent"))]).pending == ("old",)
        writer.add(usable("new"))
    cache = FeatureCache(tmp_path)
    assert cache.ids() == ("new",)
    assert cache.header.fingerprint["seed"] == 5
    assert len(list((tmp_path / "shards").iterdir())) == 2


def test_shards_without_a_header_are_no_cache_to_add_to(tmp_path: Path) -> None:
    fill(tmp_path, usable("whose"))
    (tmp_path / "cache.json").unlink()
    with pytest.raises(CacheError, match="not empty and no feature cache"):
        CacheWriter(tmp_path, header(seed=5), shard_videos=1).__enter__()
    fill(tmp_path, usable("ours"))
    assert FeatureCache(tmp_path).ids() == ("whose", "ours")


def test_a_second_writer_is_turned_away_in_one_line(tmp_path: Path) -> None:
    with CacheWriter(tmp_path, header(), shard_videos=1):
        other = f"""
from pathlib import Path
from cache_material import header
from diffvqa.cache._writer import CacheWriter
CacheWriter(Path({str(tmp_path)!r}), header(), shard_videos=1).__enter__()
"""
        done = subprocess.run(
            [sys.executable, "-c", other],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            check=False,
        )
    assert CacheBusyError.__name__ in done.stderr
    assert "is being written by another process" in done.stderr


def test_a_writer_that_is_killed_leaves_only_whole_shards_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from cache_material import header, usable
from diffvqa.cache import _shards as shards
from diffvqa.cache._writer import CacheWriter
with CacheWriter(Path({str(tmp_path)!r}), header(), shard_videos=1) as writer:
    writer.add(usable("whole"))
    shards.publish_mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    writer.add(usable("unmarked"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert done.returncode == -9
    (tmp_path / "shards" / ".unfinished-000002-abc").mkdir()
    assert len(list((tmp_path / "shards").glob("*.zarr"))) == 2
    assert FeatureCache(tmp_path).ids() == ("whole",)
    with CacheWriter(tmp_path, header(), shard_videos=1) as writer:
        assert len(list((tmp_path / "shards").iterdir())) == 2
        writer.add(usable("unmarked"))
    assert FeatureCache(tmp_path).ids() == ("whole", "unmarked")


def test_a_run_that_was_killed_while_it_began_is_in_nobodys_way(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    unfinished = tmp_path / "writers/.tmp-5353-16a8ba8a.json"
    for content in (b"", b'{"number": 1'):
        unfinished.write_bytes(content)
        fill(tmp_path, usable("b"))
        assert not unfinished.exists()
    assert set(FeatureCache(tmp_path).ids()) == {"a", "b"}
    assert not verify(tmp_path).damages


def test_what_was_added_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    def add_and_interrupt() -> None:
        with CacheWriter(tmp_path, header(), shard_videos=100) as writer:
            writer.add(usable("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_and_interrupt()
    assert FeatureCache(tmp_path).ids() == ("a",)


def test_a_full_disk_is_a_clear_error_and_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with CacheWriter(tmp_path, header(), shard_videos=1) as writer:
        writer.add(usable("before"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            with pytest.raises(OutputError, match="No space left on device"):
                writer.add(usable("lost"))
        assert not list((tmp_path / "shards").glob(".*"))
        writer.add(usable("after"))
    assert FeatureCache(tmp_path).ids() == ("before", "after")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CacheError, match="not empty and no feature cache"):
        CacheWriter(tmp_path, header(), shard_videos=1, overwrite=True).__enter__()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_run_that_dies_late_leaves_an_index_that_is_hardly_behind(tmp_path: Path) -> None:
    def add_many_and_die() -> None:
        with CacheWriter(tmp_path, header(), shard_videos=1) as writer:
            for number in range(150):
                writer.add(usable(f"v{number}", frames=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_many_and_die()
    parts = sorted((tmp_path / "catalogue").iterdir())
    assert len(parts) == 4
    for mark in mark_files(tmp_path)[:128]:
        mark.write_bytes(b"?" * mark.stat().st_size)  # known by the index, so not looked at
    assert set(FeatureCache(tmp_path).ids()) == {f"v{number}" for number in range(150)}
    (tmp_path / "catalogue" / parts[0].name).unlink()
    assert len(FeatureCache(tmp_path).info().damaged) == 32


def test_the_parts_of_an_index_become_one(tmp_path: Path) -> None:
    for number in range(9):
        fill(tmp_path, usable(f"v{number}"))
    assert len(list((tmp_path / "catalogue").iterdir())) == 9
    fill(tmp_path)
    (part,) = (tmp_path / "catalogue").iterdir()
    whole = part.read_bytes()
    fill(tmp_path, usable("v9"))
    for number in range(10):
        fill(tmp_path, failed(f"bad {number}"))
    part.write_bytes(whole)  # as if the run that made one of all had died before it removed the others
    assert FeatureCache(tmp_path).ids() == tuple(f"v{number}" for number in range(10))
    assert verify(tmp_path).damages == ()


def test_a_file_is_told_by_its_content_where_only_its_time_differs(tmp_path: Path) -> None:
    """A copy of a data set has other times; its features are not stale. A file that is gone leaves its features."""
    same, other, gone = (tmp_path / name for name in ("same.mp4", "other.mp4", "gone.mp4"))
    for path in (same, other, gone):
        path.write_bytes(b"content")
    entries = [usable(path.name, path=path) for path in (same, other, gone)]
    stamped = [
        ShardEntry(entry.row.model_copy(update={"source": entry.row.source.with_content()}), entry.arrays)
        for entry in entries
    ]
    fill(tmp_path / "cache", *stamped)
    os.utime(same, (1, 1))
    other.write_bytes(b"CONTENT")
    os.utime(other, (1, 1))
    gone.unlink()
    with CacheWriter(tmp_path / "cache", header(), shard_videos=1) as writer:
        plan = writer.plan([(path.name, path) for path in (same, other, gone)])
    assert plan.done == ("same.mp4", "gone.mp4")
    assert plan.gone == ("gone.mp4",)
    assert plan.changed == plan.pending == ("other.mp4",)


def test_a_file_that_changed_while_it_was_read_has_no_content_to_compare_with(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"first")
    stamp = SourceStamp.of(video)
    assert stamp.with_content().sha256 == hashlib.sha256(b"first").hexdigest()
    video.write_bytes(b"second")
    assert stamp.with_content().sha256 == ""
    video.unlink()
    assert stamp.with_content().sha256 == ""
    assert not SourceStamp.of(video).is_there


def test_new_and_vanished_videos_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path, usable("kept"), usable("vanished"))
    with CacheWriter(tmp_path, header(), shard_videos=1) as writer:
        plan = writer.plan([("kept", Path("absent")), ("new", Path("absent"))])
    assert (plan.new, plan.vanished, plan.done) == (("new",), ("vanished",), ("kept",))


def test_arrays_of_another_shape_under_the_same_fingerprint_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, usable("a"))
    first, *others = header().arrays
    wider = first.model_copy(update={"shape": (*first.shape[:-1], 9)})
    asked = header().model_copy(update={"arrays": (wider, *others)})
    with pytest.raises(FingerprintMismatchError, match="holds other arrays: resize/latent is"):
        CacheWriter(tmp_path, asked, shard_videos=1).__enter__()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert SourceStamp.of(tmp_path / "pipe.mp4").with_content().sha256 == ""
