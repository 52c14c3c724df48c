"""Engines of this machine, and handing out work to workers that may be lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
from cache_material import digests, fill, usable
from engine_material import SHARD_VIDEOS, VIDEOS, extract_stub, published
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._errors import OutputError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._shards import StagedShard
from diffvqa.cache._storage import LocalStorage
from diffvqa.pipeline._engines.dispatch import Dispatcher, WorkerLostError
from diffvqa.pipeline._engines.interface import Place, WorkUnit
from diffvqa.pipeline._engines.local import LocalDecoding, LocalEngine
from diffvqa.pipeline._extract import work_units
from diffvqa.stages._decoding import VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe

DECODING = LocalDecoding(ExtractRecipe(), 1, timeout=60, memory=2048, attempts=1)


def local(workers: int) -> LocalEngine:
    return LocalEngine([Place("cpu", 1, DECODING)] * workers, attempts=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The digests of an extraction without engines."""
    directory = tmp_path_factory.mktemp("whole") / "features"
    fill(directory, *map(usable, VIDEOS), shard_videos=SHARD_VIDEOS)
    return digests(directory)


def test_units_are_cut_in_order() -> None:
    names = ["0", "1", "2", "3", "4"]
    units = list(work_units(names, dict.fromkeys(names, "x"), 2))
    assert [[video.video_id for video in unit.videos] for unit in units] == [["0", "1"], ["2", "3"], ["4"]]
    assert list(work_units([], {}, 2)) == []


def test_one_process_and_two_give_the_same_cache(tmp_path: Path, whole: dict[str, dict[str, str]]) -> None:
    seen: list[bool] = []
    for workers in (1, 2):
        done = extract_stub(tmp_path / str(workers), local(workers), on_video=seen.append)
        assert digests(tmp_path / str(workers)) == whole
        assert (done.failed, done.redone) == ((), 0)
    assert seen == 2 * len(VIDEOS) * [False]


def test_a_video_that_ends_its_process_each_time_is_given_up_and_its_neighbours_are_not(
    tmp_path: Path, whole: dict[str, dict[str, str]]
) -> None:
    deadly, log = frozenset({VIDEOS[6]}), tmp_path / "log"
    videos = VIDEOS[:12]
    done = extract_stub(tmp_path / "features", local(2), videos=videos, deadly=deadly, log=str(log))
    assert [(row.video_id, row.reason) for row in done.failed] == [(VIDEOS[6], "crashed")]
    assert done.redone >= 1
    alive = [video_id for video_id in videos if video_id not in deadly]
    assert digests(tmp_path / "features") == {video_id: whole[video_id] for video_id in alive}
    assert published(tmp_path / "features") == sorted(videos)


def test_an_error_of_the_work_ends_the_run_and_what_was_published_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_folder, made = LocalStorage.new_folder, Counter[str]()

    def fail_at_third(self: LocalStorage, name: str) -> object:
        made["folders"] += 1
        if made["folders"] == 3:
            raise OutputError("the disk is full.")
        return new_folder(self, name)

    monkeypatch.setattr(LocalStorage, "new_folder", fail_at_third)
    with pytest.raises(OutputError, match="the disk is full"):
        extract_stub(tmp_path, local(1))
    assert 0 < len(FeatureCache(tmp_path).ids()) < len(VIDEOS)


Result = TypeVar("Result")


class Unreliable:
    """A workplace that loses its worker now and then, and always with a deadly video."""

    def __init__(self, rng: random.Random, deadly: frozenset[str], loss: float) -> None:
        self._rng, self._deadly, self._loss = rng, deadly, loss
        self.rehearsed: list[str] = []

    def ready(self) -> Future[None]:
        return self._ended(lambda: None, lost=self._rng.random() < self._loss)

    def submit(self, unit: WorkUnit) -> Future[StagedShard]:
        touched = {video.video_id for video in unit.videos} - unit.given_up
        lost = bool(touched & self._deadly) or self._rng.random() < self._loss
        return self._ended(lambda: StagedShard(str(unit.number), b"", ()), lost=lost)

    def rehearse(self, video: VideoSource) -> Future[None]:
        self.rehearsed.append(video.video_id)
        return self._ended(lambda: None, lost=video.video_id in self._deadly)

    def _ended(self, result: Callable[[], Result], *, lost: bool) -> Future[Result]:
        future: Future[Result] = Future()
        if lost:
            future.set_exception(WorkerLostError("as planned"))
        else:
            future.set_result(result())
        return future


@given(
    seed=st.integers(0, 2**16),
    workers=st.integers(1, 4),
    videos=st.integers(0, 23),
    deadly=st.sets(st.integers(0, 22), max_size=3),
    loss=st.sampled_from([0.0, 0.2]),
)
def test_every_unit_is_done_once_and_only_deadly_videos_are_given_up(
    seed: int, workers: int, videos: int, deadly: set[int], loss: float
) -> None:
    rng = random.Random(seed)
    names = [str(number) for number in range(videos)]
    bad = frozenset(str(number) for number in deadly if number < videos)
    units = list(work_units(names, dict.fromkeys(names, "absent"), 4))
    places = [Unreliable(rng, bad, loss) for _ in range(workers)]
    done = list(Dispatcher(places, attempts=2).run(units))
    assert sorted(each.unit.number for each in done) == [unit.number for unit in units]
    assert [each.shard.name for each in done] == [str(each.unit.number) for each in done]
    given_up = frozenset[str]().union(*(each.unit.given_up for each in done))
    assert bad <= given_up
    if not loss:
        assert given_up == bad
        assert all(each.attempts == 1 for each in done if not each.unit.given_up and workers > len(units))


def test_units_are_taken_as_workers_come_free() -> None:
    taken: list[int] = []
    waiting: list[tuple[int, Future[StagedShard]]] = []

    class Slow:
        def ready(self) -> Future[None]:
            future: Future[None] = Future()
            future.set_result(None)
            return future

        def submit(self, unit: WorkUnit) -> Future[StagedShard]:
            future: Future[StagedShard] = Future()
            waiting.append((unit.number, future))
            if len(waiting) == 4:
                for number, each in waiting:
                    each.set_result(StagedShard(str(number), b"", ()))
                waiting.clear()
            return future

        def rehearse(self, video: VideoSource) -> Future[None]:
            raise AssertionError(video)

    names = [str(number) for number in range(100)]

    def units() -> Iterator[WorkUnit]:
        for unit in work_units(names, dict.fromkeys(names, "absent"), 1):
            taken.append(unit.number)
            yield unit

    for number, _ in enumerate(Dispatcher([Slow(), Slow()], attempts=1, ahead=2).run(units())):
        assert len(taken) <= number + 1 + 2 * 2 * 2
    assert taken == list(range(100))
