"""Ray as an engine, on a cluster of several nodes that Ray's own utility runs on this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from cache_material import digests, fill, usable
from call_material import end_process, fail_with_hint, where_it_runs
from conftest import CHILD_PROCESSES, MakeClip
from elsewhere_material import grid, make_runs, model_files, sweep, train
from engine_material import SHARD_VIDEOS, VIDEOS, extract_stub, noted_by, processes_in, published

from diffvqa.cache._errors import OutputError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._verify import verify
from diffvqa.pipeline import _extraction_task as extraction_task
from diffvqa.pipeline import _regressor_training as regressor_training
from diffvqa.pipeline._config import Settings, resolve_settings
from diffvqa.pipeline._engines import choice
from diffvqa.pipeline._engines.interface import as_done
from diffvqa.pipeline._engines.local import LocalDecoding
from diffvqa.pipeline._engines.ray_engine import ClusterOptions, RayEngine
from diffvqa.pipeline._errors import ClusterError
from diffvqa.pipeline._extract import extract
from diffvqa.pipeline._manifest import Manifest, ManifestRow, write_manifest
from diffvqa.stages._extract_recipe import ExtractRecipe

ray = pytest.importorskip("ray")

DECODING = LocalDecoding(ExtractRecipe(), 1, timeout=60, memory=2048, attempts=2)
OBJECT_STORE = 80 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two nodes of three each: room on either for one worker with its decoder, not for two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([CHILD_PROCESSES, *sys.path]))
        patch.setenv("RAY_health_check_period_ms", "500")
        # Processes that Ray would start ahead are of no use to a job that sends its code along, nor is one that reads
        # logs which are not asked for.
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        patch.setenv("RAY_enable_worker_prestart", "0")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        head["include_log_monitor"] = False
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            add_node(cluster)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]


def add_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=3, object_store_memory=OBJECT_STORE, wait=False)


def engine(cluster: Any, **options: Any) -> RayEngine:
    chosen = {"address": cluster.address, "threads": 1, "decoders": 1, "attempts": 2, **options}
    return RayEngine(ClusterOptions(**chosen), DECODING)


def test_a_video_that_crashes_its_worker_each_time_is_listed_and_its_neighbours_are_not(
    cluster: Any, tmp_path: Path
) -> None:
    """A segmentation fault in the model's own process."""
    videos, log, seen = VIDEOS[: 3 * SHARD_VIDEOS], tmp_path / "log", Counter[bool]()
    fill(tmp_path / "whole", *map(usable, videos), shard_videos=SHARD_VIDEOS)
    whole = digests(tmp_path / "whole")
    done = extract_stub(
        tmp_path / "features",
        engine(cluster, workers=2),
        videos=videos,
        deadly=frozenset({VIDEOS[5]}),
        log=str(log),
        on_video=lambda failed: seen.update([failed]),
    )
    assert [(row.video_id, row.reason) for row in done.failed] == [(VIDEOS[5], "crashed")]
    assert done.redone >= 1
    assert digests(tmp_path / "features") == {each: whole[each] for each in videos if each != VIDEOS[5]}
    assert seen == {True: 1, False: len(videos) - 1}
    assert published(tmp_path / "features") == sorted(videos)
    assert verify(tmp_path / "features").damages == ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_clip: MakeClip) -> Path:
    """A data set of real clips, one of which is none."""
    runs = tmp_path_factory.mktemp("runs")
    clips = [make_clip(f"ray-{number}.mp4", "-ss", str(number / 4), "-t", "1") for number in range(5)]
    broken = runs / "broken.mp4"
    broken.write_bytes(b"no video")
    paths = [*clips, broken]
    rows = tuple(ManifestRow(f"v{number}", str(path), 1.0 + number, "") for number, path in enumerate(paths))
    write_manifest(runs / "set", Manifest("set", rows))
    return runs


def settings_for(prepared: Path, tiny_model: Path, **runtime: Any) -> Settings:
    recipe = {"model": str(tiny_model), "frames": 2, "view_size": 32, "crops": 2, "grid": 4}
    common = {"runs": str(prepared), "threads": 1, "workers": 1, "shard_videos": 1, "decode_timeout": 300}
    return resolve_settings(
        None,
        {
            **{f"extract.{key}": value for key, value in recipe.items()},
            **{f"runtime.{key}": value for key, value in {**common, **runtime}.items()},
        },
    )


def test_real_videos_give_the_same_features_here_and_with_a_worker_on_each_of_two_nodes(
    cluster: Any, prepared: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model folder lies where workers need not look: its weights are sent to them.

    Both workers hold their place until each has begun a unit, and a node has room for one. There are units enough for
    each worker to get one, though the one that begins first is given two.
    """
    here = extract("set", settings_for(prepared, tiny_model), cache=prepared / "here")
    of_here = FeatureCache(prepared / "here")
    assert len(of_here) == 5
    on_ray = {"engine": "ray", "ray_address": cluster.address, "ray_decoders": 1, "model_workers": 2}
    log, cache = prepared / "log", prepared / "there"
    monkeypatch.setattr(extraction_task, "ExtractionTask", noted_by(log, together=2))
    there = extract("set", settings_for(prepared, tiny_model, **on_ray), cache=cache)
    assert len(processes_in(log)) == 2
    assert digests(cache) == digests(prepared / "here")
    assert (there.failures, there.redone) == (here.failures, 0)
    of_there = FeatureCache(cache)
    assert [of_there[each].row for each in of_here.ids()] == [of_here[each].row for each in of_here.ids()]
    assert of_there.header.fingerprint == of_here.header.fingerprint
    assert list(Path(tempfile.gettempdir()).glob("diffvqa-scratch-*-models-*")) == []


def test_calls_run_as_tasks_with_the_code_that_was_sent_along(cluster: Any) -> None:
    with engine(cluster, workers=2) as there:
        results = dict(as_done(there, where_it_runs, range(6)))
        with pytest.raises(OutputError, match=r"number 1 cannot be written\. Give up\."):
            there.submit(fail_with_hint, 1).result()
        with pytest.raises(ClusterError, match="was lost 2 times with the same work"):
            there.submit(end_process, 0).result()
    assert {number: result[0] for number, result in results.items()} == {number: number**2 for number in range(6)}
    assert all("runtime_resources" in place for _, place in results.values())


def test_a_training_a_search_and_a_grid_are_those_of_one_process_to_the_last_bit(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(tmp_path)
    pretrained = ("--pretrain", "second", "--set", "train.pretrain_epochs=1")
    assert train(runs, *pretrained) == 0
    here, searched = (model_files(runs), grid(runs)), sweep(runs, trials=3)
    options = ("--engine", "ray", "--address", cluster.address)
    with engine(cluster, decoders=0, workers=2) as entered:
        for module in (choice, regressor_training):
            monkeypatch.setattr(module, "choose_engine", lambda _settings: nullcontext(entered))
        assert train(runs, *pretrained, *options) == 0
        there = model_files(runs), grid(runs, *options)
        monkeypatch.setattr(type(entered), "calls_at_once", 1)  # so that the study knows as much when it is asked
        assert sweep(runs, *options, trials=3) == searched
    assert there == here


def test_too_small_a_cluster_and_one_that_is_not_there_are_clear_errors(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"6 CPUs, at most 3 on one: no room for a worker of 64 thread"):
        extract_stub(tmp_path / "features", engine(cluster, threads=64))
    with pytest.raises(ClusterError, match=r"The cluster has no GPU. Use --device cpu"):
        extract_stub(tmp_path / "features", engine(cluster, device="cuda"))


DRIVER = """
import json, sys
from pathlib import Path
from engine_material import extract_stub
from diffvqa.pipeline._engines.local import LocalDecoding
from diffvqa.pipeline._engines.ray_engine import ClusterOptions, RayEngine
from diffvqa.stages._extract_recipe import ExtractRecipe

location, address, log, videos = sys.argv[1:]
names = [f"video {number:03d}" for number in range(int(videos))]
options = ClusterOptions(address=address, threads=1, decoders=1, attempts=5, workers=2)
engine = RayEngine(options, LocalDecoding(ExtractRecipe(), 1, timeout=60, memory=2048, attempts=2))
done = extract_stub(location, engine, videos=names, seconds=0.2, log=log)
print(json.dumps({"redone": done.redone, "failed": len(done.failed)}))
"""


def test_ten_random_kills_of_workers_nodes_and_drivers_change_nothing(cluster: Any, tmp_path: Path) -> None:
    """Run again until it ends well; what is done twice is published once."""
    videos, log, directory = 320, tmp_path / "log", tmp_path / "features"
    names = [f"video {number:03d}" for number in range(videos)]
    fill(tmp_path / "whole", *map(usable, names), shard_videos=SHARD_VIDEOS)
    kills = ["worker"] * 4 + ["node"] * 3 + ["driver"] * 3
    random.Random(3).shuffle(kills)
    reports = []
    for _ in range(30):
        command = [sys.executable, "-c", DRIVER, str(directory), cluster.address, str(log), str(videos)]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while kills and driver.poll() is None:
            before = begun(log)
            while driver.poll() is None and begun(log) < before + 3:
                time.sleep(0.02)
            if driver.poll() is None:
                kill(kills.pop(), driver, cluster, log)
        out, words = driver.communicate()
        if driver.returncode == 0:
            reports.append(json.loads(out.splitlines()[-1]))
            break
        assert driver.returncode == -signal.SIGKILL or "raylet" in words, words
    assert kills == []
    assert digests(directory) == digests(tmp_path / "whole")
    assert published(directory) == sorted(names)
    assert verify(directory).damages == ()
    assert begun(log) > videos // SHARD_VIDEOS
    assert reports[-1]["failed"] == 0
    assert len(list((directory / "shards").glob("*.zarr"))) == videos // SHARD_VIDEOS


def begun(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def kill(what: str, driver: subprocess.Popen[str], cluster: Any, log: Path) -> None:
    if what == "driver":
        driver.kill()
    elif what == "node":
        cluster.remove_node(
            random.Random(len(cluster.worker_nodes)).choice(sorted(cluster.worker_nodes, key=str)), False
        )
        add_node(cluster)
    else:
        process = int(log.read_text().splitlines()[-1].split()[0])
        if psutil.pid_exists(process):
            os.kill(process, signal.SIGKILL)
