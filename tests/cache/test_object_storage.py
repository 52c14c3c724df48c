"""A cache behind the S3 protocol: moto's server on this machine stands in for the object store."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
import s3fs
import zarr
from cache_material import SPECS, arrays_of, digests, failed, fill, header, usable
from moto.server import ThreadedMotoServer
from ready_processes import add_and_die, processes

from diffvqa.cache import _run_lock as run_lock
from diffvqa.cache._errors import (
    CacheBusyError,
    CacheCorruptError,
    CacheMissingError,
    CacheUnreachableError,
    OutputError,
)
from diffvqa.cache._export import FeatureExport, Labels
from diffvqa.cache._export_h5 import export_h5
from diffvqa.cache._export_npz import export_npz
from diffvqa.cache._export_parquet import export_parquet
from diffvqa.cache._import_h5 import Imported, import_h5
from diffvqa.cache._merge import merge
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._storage import open_storage
from diffvqa.cache._streaming import FeatureStream
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The endpoint of an S3 server, in the environment as users put it there."""
    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(port=0)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield f"http://{host}:{port}"
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "s3":
        request.getfixturevalue("server")
        return f"s3://bucket/{uuid.uuid4().hex}/features"
    return f"memory://{uuid.uuid4().hex}/features"


def test_writing_resuming_reading_and_verifying(url: str) -> None:
    fill(url, usable("a", frames=2, crops=1), failed("bad"), usable("b"))
    with CacheWriter(url, header(), shard_videos=2) as writer:
        plan = writer.plan([(name, Path("absent")) for name in ("a", "b", "bad", "c")])
        assert (plan.pending, plan.done) == (("c",), ("a", "b"))
        writer.add(usable("c", frames=1))
    cache = FeatureCache(url)
    assert cache.url == url
    assert cache.ids() == ("a", "b", "c")
    assert [row.video_id for row in cache.failures()] == ["bad"]
    for name, array in arrays_of("a", 2, 1).items():
        np.testing.assert_array_equal(cache["a"][name], array)
    report = verify(url)
    assert (report.videos, report.shards, report.damages) == (3, 3, ())
    assert cache.info().size < report.size


def test_plain_zarr_reads_a_shard_through_its_own_store(url: str) -> None:
    fill(url, usable("a"), usable("b", frames=2))
    cache = FeatureCache(url)
    (shard,) = cache.shards()
    group = zarr.open_group(cache.storage.zarr_store(f"shards/{shard}.zarr"), mode="r")
    for spec in SPECS:
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(array[1][:2], arrays_of("b", 2)[spec.name])  # type: ignore[index]


def test_damage_is_found_and_named(url: str) -> None:
    fill(url, usable("a"), usable("b"))
    storage = open_storage(url)
    (file,) = (listed.name for listed in storage.walk("shards") if "crop/frames/c/" in listed.name)
    content = bytearray(storage.read(file))
    content[5] ^= 1
    storage.write(file, bytes(content))
    with pytest.raises(CacheCorruptError, match=f"{url}.*'crop/frames' of video 'a' is damaged"):
        FeatureCache(url)["a"]["crop/frames"]
    (damage,) = verify(url).damages
    assert (damage.file, damage.videos, damage.arrays) == (f"{url}/{file}", ("a",), ("crop/frames",))


def test_a_second_run_is_refused_while_the_first_is_alive(url: str) -> None:
    with CacheWriter(url, header(), shard_videos=1) as first:
        with pytest.raises(CacheBusyError, match=rf"being written by another process \({os.getpid()} on .*free at"):
            CacheWriter(url, header(), shard_videos=1).__enter__()
        first.add(usable("a"))
    with CacheWriter(url, header(), shard_videos=1) as second:
        second.add(usable("b"))
    assert FeatureCache(url).ids() == ("a", "b")
    assert open_storage(url).entries("writers") == []


def test_only_one_of_two_that_start_at_once_gets_the_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one looked before the first had begun; the conditional PUT tells it."""
    storage = open_storage(url)
    monkeypatch.setattr(run_lock, "_is_alive", lambda _run: False)
    latest = run_lock._latest
    with run_lock.begin_run(storage, at_least=lambda: 0):
        looks = iter([None])
        monkeypatch.setattr(run_lock, "_latest", lambda there: next(looks, latest(there)))
        with pytest.raises(CacheBusyError), run_lock.begin_run(storage, at_least=lambda: 0):
            pytest.fail("two runs at once")


def test_a_run_that_lost_its_cache_publishes_nothing_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it hung for longer than its lease, and another one took over."""
    slow = CacheWriter(url, header(), shard_videos=1)
    with slow:
        slow.add(usable("before"))
        with monkeypatch.context() as patch:
            patch.setattr(run_lock, "_is_alive", lambda _run: False)
            with CacheWriter(url, header(), shard_videos=1) as other:
                with pytest.raises(CacheBusyError, match="written by another run meanwhile"):
                    slow.add(usable("lost"))
                other.add(usable("lost", frames=1))
    assert FeatureCache(url).ids() == ("before", "lost")
    assert verify(url).damages == ()


def test_a_run_in_an_object_store_gives_signs_of_life(url: str) -> None:
    storage = open_storage(url)
    with run_lock.begin_run(storage, at_least=lambda: 0, lease=1.0) as run:
        deadline = time.monotonic() + 20
        while True:
            (listed,) = storage.entries("writers")
            renewed = json.loads(storage.read(listed.name))
            if renewed["expires"] > run.expires + 1.0:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert renewed["token"] == run.token
    assert storage.entries("writers") == []


def test_caches_are_merged_from_and_to_object_storage(url: str, tmp_path: Path) -> None:
    fill(tmp_path, usable("local"))
    fill(url, usable("remote"))
    assert merge([tmp_path], url).videos == 2
    assert merge([url], tmp_path).videos == 2
    assert digests(url) == digests(tmp_path)


def test_overwriting_replaces_everything(url: str) -> None:
    fill(url, usable("old"))
    with CacheWriter(url, header(seed=5), shard_videos=1, overwrite=True) as writer:
        writer.add(usable("new"))
    assert FeatureCache(url).ids() == ("new",)
    assert len(open_storage(url).entries("shards")) == 2


@pytest.mark.usefixtures("server")
def test_an_upload_that_is_killed_is_not_there_and_the_rerun_ends_the_same() -> None:
    """Killed before each kind of PUT: header, group, array, metadata, mark, index; then run again until it is done."""
    prefix = f"s3://bucket/{uuid.uuid4().hex}"
    names = tuple(f"v{number}" for number in range(6))
    fill(f"{prefix}/whole", *map(usable, names))
    killed = f"{prefix}/killed"
    for deadly in (1, 4, 7, 8, 99):
        process = processes.Process(target=add_and_die, args=(killed, names, deadly, dict(os.environ)))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if deadly < 99 else 0)
        if deadly > 1:
            done = FeatureCache(killed).ids()
            assert done == names[: len(done)]
            assert not [damage for damage in verify(killed).damages if damage.videos]
    assert digests(killed) == digests(f"{prefix}/whole")
    assert verify(killed).damages == ()
    assert len(open_storage(killed).entries("shards")) == 6


def test_what_is_not_there_or_not_allowed_is_one_clear_error(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheMissingError, match="s3://bucket/nothing is no feature cache"):
        FeatureCache("s3://bucket/nothing")
    with pytest.raises(OutputError, match="s3://no-such-bucket/x"):
        fill("s3://no-such-bucket/x", usable("a"))
    assert server
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(CacheUnreachableError, match=r"s3://bucket/away.* cannot be read"):
        FeatureCache("s3://bucket/away")
    s3fs.S3FileSystem.clear_instance_cache()


def test_streaming_exporting_and_importing(url: str, tmp_path: Path) -> None:
    entries = [usable(f"v{number}", frames=1 + number % 4) for number in range(9)]
    fill(url, *entries, failed("bad"), shard_videos=4)
    cache = FeatureCache(url)
    streamed = {video.row.video_id: video for video in FeatureStream(cache, seed=0, threads=4)}
    assert set(streamed) == set(cache.ids())
    for entry in entries:
        for name, array in (entry.arrays or {}).items():
            np.testing.assert_array_equal(streamed[entry.row.video_id][name], array)
    everything = FeatureExport(cache, labels=Labels(dict.fromkeys((*cache.ids(), "bad"), 1.0)), provenance={})
    place, folder = url.removesuffix("/features"), open_storage(url.removesuffix("/features"))
    export_npz(everything, f"{place}/npz")
    assert len(folder.entries("npz")) == len(entries) + 1
    export_h5(everything, f"{place}/x.h5")
    (tmp_path / "x.h5").write_bytes(folder.read("x.h5"))
    assert import_h5(tmp_path / "x.h5", f"{place}/again") == Imported(videos=9, failures=1, present=0)
    assert digests(f"{place}/again") == digests(url)
    export_parquet(everything, f"{place}/x.parquet")
    (tmp_path / "x.parquet").write_bytes(folder.read("x.parquet"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert sorted(table["video_id"].to_pylist()) == sorted(cache.ids())
