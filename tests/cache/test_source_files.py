"""Files at URLs: what is known of them, fetching them, and telling whether they are still the same."""

from __future__ import annotations

import errno
import hashlib
import uuid
from pathlib import Path

import fsspec
import pytest
from cache_material import fill, header, usable
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._errors import CacheUnreachableError, OutputError
from diffvqa.cache._schema import ABSENT, SourceStamp
from diffvqa.cache._source_files import digest, fetch, file_location, is_url, look_up, look_up_all
from diffvqa.cache._storage import open_storage
from diffvqa.cache._writer import CacheWriter

FILES = {f"clip {number}.mp4": bytes([number]) * (number + 1) * 1000 for number in range(20)}


@pytest.fixture
def folder() -> str:
    folder = f"memory://{uuid.uuid4().hex}/videos"
    for name, content in FILES.items():
        open_storage(folder).write(name, content)
    return folder


def test_what_is_known_of_files_is_the_same_one_by_one_and_all_at_once(folder: str) -> None:
    urls = [f"{folder}/{name}" for name in FILES]
    found = look_up_all([*urls, f"{folder}/gone.mp4"])
    sizes = {url: one.size for url, one in found.items() if one is not None}
    assert sizes == {f"{folder}/{name}": len(content) for name, content in FILES.items()}
    assert found[f"{folder}/gone.mp4"] is None
    few = look_up_all([*urls[:2], f"{folder}/gone.mp4"])
    assert {url: SourceStamp.listed(url, one) for url, one in few.items()} == {
        url: SourceStamp.listed(url, found[url]) for url in few
    }
    assert look_up(folder) is None


def test_a_fetched_file_is_whole_and_known_by_its_content(folder: str, tmp_path: Path) -> None:
    for name, content in FILES.items():
        found, sha256 = fetch(f"{folder}/{name}", tmp_path / name)
        assert (found.size, sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (tmp_path / name).read_bytes() == content
        assert digest(f"{folder}/{name}") == hashlib.sha256(content).hexdigest()
    with pytest.raises(FileNotFoundError):
        fetch(f"{folder}/gone.mp4", tmp_path / "gone")


def test_half_a_file_and_a_full_disk_are_told_apart(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "clip 3.mp4"
    files = fsspec.filesystem("memory")

    def half(_self: object, _path: str, target: str) -> None:
        Path(target).write_bytes(FILES[name][:100])

    def full(_self: object, _path: str, _target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(files), "get_file", half)
    with pytest.raises(CacheUnreachableError, match=r"clip 3.mp4 cannot be read: 100 of 4000 bytes came"):
        fetch(f"{folder}/{name}", tmp_path / "half")
    monkeypatch.setattr(type(files), "get_file", full)
    with pytest.raises(OutputError, match=r"No space left on device\. Make room there, or set TMPDIR"):
        fetch(f"{folder}/{name}", tmp_path / "full")


def test_locations_are_told_apart() -> None:
    assert is_url("s3://bucket/a.mp4")
    assert not is_url("a.mp4")
    assert not is_url(Path("s3:/bucket/a.mp4"))
    assert file_location("file:///videos/a.mp4") == Path("/videos/a.mp4")
    assert file_location("s3://bucket/a.mp4") == "s3://bucket/a.mp4"


STAMPS = st.builds(
    SourceStamp,
    path=st.just("memory://none/a"),
    size=st.sampled_from([ABSENT, 1, 2]),
    mtime_ns=st.sampled_from([ABSENT, 1, 2]),
    etag=st.sampled_from(["", "a", "b"]),
    sha256=st.sampled_from(["", "x", "y"]),
)


@given(STAMPS, STAMPS)
def test_what_is_alike_is_alike_both_ways_and_never_of_another_size_or_name(
    one: SourceStamp, other: SourceStamp
) -> None:
    assert one.is_like(other) == other.is_like(one)
    if one.is_like(other):
        assert (one.size, one.etag) == (other.size, other.etag)
        assert one.same_content_as(other)
    if one.size == other.size and one.sha256 == other.sha256 != "":
        assert one.same_content_as(other)


def test_a_cache_knows_the_file_again_when_it_comes_to_lie_at_a_url(folder: str, tmp_path: Path) -> None:
    """Its name and its times are others there; its content is what counts."""
    name = "clip 3.mp4"
    for place, content in (("same", FILES[name]), ("other", FILES[name][::-1] + b"x")):
        path = tmp_path / f"{place}.mp4"
        path.write_bytes(content)
        entry = usable("v")
        source = SourceStamp.of(path).with_content()
        entry = type(entry)(entry.row.model_copy(update={"source": source}), entry.arrays)
        fill(tmp_path / place, entry)
        with CacheWriter(tmp_path / place, header(), shard_videos=1) as writer:
            plan = writer.plan([("v", f"{folder}/{name}")])
        assert (plan.done, plan.changed) == ((("v",), ()) if place == "same" else ((), ("v",)))
    with CacheWriter(tmp_path / "same", header(), shard_videos=1) as writer:
        assert writer.plan([("v", f"{folder}/gone.mp4")]).gone == ("v",)
