"""Where exports go: URLs, and what a killed one leaves behind."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from cache_material import fill, usable
from export_material import IDS, odd_cache, odd_export
from ready_processes import FORMATS, export_again_and_again, processes

from diffvqa.cache._errors import CacheUnreachableError, OutputError
from diffvqa.cache._export_npz import INDEX_FILE, export_npz
from diffvqa.cache._import_h5 import import_h5
from diffvqa.cache._reader import FeatureCache


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return odd_cache(tmp_path / "cache")


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_to_a_url_is_the_one_to_a_path(cache: FeatureCache, memory: Any, tmp_path: Path, name: str) -> None:
    at_path = FORMATS[name](odd_export(cache), str(tmp_path / "x"))
    assert FORMATS[name](odd_export(cache), "memory://bucket/deep/x") == at_path
    memory.get("/bucket/deep/x", str(tmp_path / "back"), recursive=True)
    read = {"h5": read_h5, "npz": read_npz, "parquet": read_parquet}[name]
    assert read(tmp_path / "back") == read(tmp_path / "x")


def read_h5(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: repr(item[:].tolist()).encode()})
                        if isinstance(item, h5py.Dataset) else None)  # fmt: skip
    assert found
    return found


def read_npz(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(found) == len(IDS) + 1
    return {name: content if name == INDEX_FILE else _arrays(folder / name) for name, content in found.items()}


def _arrays(path: Path) -> bytes:
    with np.load(path) as stored:
        return repr({name: stored[name].tolist() for name in stored.files}).encode()


def read_parquet(path: Path) -> Any:
    return pq.read_table(path).to_pylist()


def test_an_earlier_folder_at_a_url_is_replaced_and_anything_else_is_not(cache: FeatureCache, memory: Any) -> None:
    export_npz(odd_export(cache), "memory://bucket/npz")
    memory.pipe("/bucket/npz/old.npz", b"old")
    export_npz(odd_export(cache), "memory://bucket/npz")
    assert not memory.exists("/bucket/npz/old.npz")
    memory.pipe("/bucket/other/precious", b"keep me")
    with pytest.raises(OutputError, match="no earlier export"):
        export_npz(odd_export(cache), "memory://bucket/other")
    assert memory.cat("/bucket/other/precious") == b"keep me"


@pytest.mark.parametrize("name", FORMATS)
def test_a_url_that_nothing_speaks_is_a_clear_error(cache: FeatureCache, name: str) -> None:
    with pytest.raises(CacheUnreachableError, match="nosuch://bucket"):
        FORMATS[name](odd_export(cache), "nosuch://bucket/x")


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_killed_at_any_moment_leaves_nothing_that_looks_finished(tmp_path: Path, name: str) -> None:
    """A process that exports again and again is killed at random moments."""
    ids = [f"v{number}" for number in range(24)]
    fill(tmp_path / "cache", *map(usable, ids), shard_videos=8)
    generator, interrupted, attempt = random.Random(0), 0, 0
    while interrupted < 3:
        attempt += 1
        assert attempt < 20, "hardly any kill fell into an export"
        folder = tmp_path / f"out{attempt}"
        folder.mkdir()
        begun, says = processes.Pipe(duplex=False)
        process = processes.Process(target=export_again_and_again, args=(name, tmp_path / "cache", folder / "x", says))
        process.start()
        says.close()
        begun.recv()
        time.sleep(generator.uniform(0, 0.15))
        process.kill()
        process.join()
        interrupted += any(path.name.startswith(".tmp-") for path in folder.iterdir())
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        assert [path.name for path in visible] in ([], ["x"])
        for path in visible:
            assert_whole(name, path, ids)


def assert_whole(name: str, path: Path, ids: list[str]) -> None:
    match name:
        case "h5":
            assert import_h5(path, path.parent / "again").videos == len(ids)
        case "npz":
            assert len(list(path.iterdir())) == len(ids) + 1
            for file in path.glob("*.npz"):
                with np.load(file) as stored:
                    assert all(stored[one].size for one in stored.files)
        case "parquet":
            assert sorted(pq.read_table(path)["video_id"].to_pylist()) == sorted(ids)
