"""Every byte of a cache is under a digest: what is changed anywhere is found, and spoils no more than it must."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from cache_material import SPECS, arrays_of, data_files, failed, fill, header, mark_files, usable

from diffvqa.cache import _shards as shards
from diffvqa.cache._catalogue import CATALOGUE_FOLDER
from diffvqa.cache._errors import CacheCorruptError, CacheMissingError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._verify import Damage, verify
from diffvqa.cache._writer import CacheWriter

FLIPS = 200
FRAMES = {f"video {number}": 1 + number % 4 for number in range(7)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "cache"
    fill(directory, *(usable(name, frames=frames) for name, frames in FRAMES.items()), failed("bad"), shard_videos=3)
    return directory


def committed_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))


def test_a_whole_cache_is_as_written(whole: Path) -> None:
    report = verify(whole)
    assert report.damages == ()
    assert (report.videos, report.shards) == (len(FRAMES), 3)
    assert report.size == sum(path.stat().st_size for path in committed_files(whole))


def test_200_flipped_bytes_are_found_and_spoil_only_what_they_hit(whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    shutil.copytree(whole, directory)
    rng = random.Random(20)
    files = committed_files(directory)
    # Half of the flips go anywhere by size, half to each file alike: else the small ones would hardly be hit.
    by_size = rng.choices(files, weights=[path.stat().st_size for path in files], k=FLIPS // 2)
    found, kinds = 0, set()
    for path in [*by_size, *rng.choices(files, k=FLIPS - FLIPS // 2)]:
        intact = path.read_bytes()
        flipped = bytearray(intact)
        flipped[rng.randrange(len(flipped))] ^= rng.randrange(1, 256)
        path.write_bytes(flipped)
        damages = verify(directory).damages
        found += str(path) in {damage.file for damage in damages}
        kinds.add(path.suffix or "data")
        unreadable = unreadable_arrays(directory)
        if path.name == "cache.json":
            assert unreadable is None
        else:
            named = {(video, array) for damage in damages for video in damage.videos for array in damage.arrays}
            assert unreadable == named
        path.write_bytes(intact)
    assert found == FLIPS
    assert kinds == {".json", ".arrow", "data"}


def unreadable_arrays(directory: Path) -> set[tuple[str, str]] | None:
    """Read everything: what cannot be read, after a look at what can; None when the cache cannot be opened."""
    try:
        cache = FeatureCache(directory)
    except CacheCorruptError:
        return None
    unreadable = set()
    assert set(cache.ids()) == set(FRAMES)
    for video_id, frames in FRAMES.items():
        expected = arrays_of(video_id, frames)
        for name in cache[video_id]:
            message = ""
            try:
                np.testing.assert_array_equal(cache[video_id][name], expected[name])
            except CacheCorruptError as error:
                message = str(error)
                unreadable.add((video_id, name))
            assert not message or (f"'{video_id}'" in message and f"'{name}'" in message)
    return unreadable


def test_a_lost_file_a_cut_file_and_a_stranger_are_found(whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    shutil.copytree(whole, directory)
    lost, cut, grown = data_files(directory, "resize/latent")
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-60])
    grown.write_bytes(grown.read_bytes() + b"!")
    (grown.parent / "1").write_bytes(b"whose?")
    by_file = {damage.file: damage for damage in verify(directory).damages}
    assert by_file[str(lost)] == Damage(
        str(lost), "it is not there", ("resize/latent",), ("video 0", "video 1", "video 2")
    )
    assert by_file[str(cut)].videos == ("video 5",)
    assert by_file[str(grown)].videos == ()
    assert by_file[str(grown.parent / "1")].why == "it is not in the shard's mark"
    assert len(by_file) == 4


def test_an_index_that_contradicts_the_marks_is_found(tmp_path: Path) -> None:
    """As no writer would leave it: whole, of the same marks by name and size, and wrong."""
    for directory, video in (("a", "video a"), ("b", "video b")):
        fill(tmp_path / directory, usable(video))
    mark_a, mark_b = (mark_files(tmp_path / name)[0] for name in "ab")
    assert mark_a.stat().st_size == mark_b.stat().st_size
    shutil.rmtree(mark_a.with_suffix(".zarr"))
    mark_b.replace(mark_a)
    mark_b.with_suffix(".zarr").rename(mark_a.with_suffix(".zarr"))
    (damage,) = verify(tmp_path / "a").damages
    assert CATALOGUE_FOLDER in damage.file
    assert "does not say what the marks say" in damage.why


def test_a_value_that_was_wrong_before_it_was_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory fails too: the files are as written, the values are not those that were digested."""
    entry = usable("a")
    assert entry.arrays is not None
    other = {name: array.copy() for name, array in entry.arrays.items()}
    other["crop/frames"][0, 0, 0, 0, 0] ^= 1
    described = shards._described
    monkeypatch.setattr(shards, "_described", lambda given, specs: described(ShardEntry(given.row, other), specs))
    with CacheWriter(tmp_path, header(), shard_videos=1) as writer:
        writer.add(entry)
    (damage,) = verify(tmp_path).damages
    assert (damage.arrays, damage.videos) == (("crop/frames",), ("a",))


def test_progress_is_told_and_no_cache_is_an_error(whole: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    verify(whole, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(CacheMissingError):
        verify(tmp_path)


def test_verifying_needs_no_index(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / CATALOGUE_FOLDER)
    assert verify(tmp_path / "cache").damages == ()
    assert {spec.name for spec in SPECS} == set(FeatureCache(tmp_path / "cache")["video 0"])
