"""This machine as an engine: the model in this process, or a process for each of several GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffvqa.pipeline._engines.dispatch import Dispatcher, Workplace
from diffvqa.pipeline._engines.interface import (
    Argument,
    CallPlace,
    DoneUnit,
    OnVideo,
    Place,
    Result,
    UnitTask,
    UnitWorker,
    WorkUnit,
)

if TYPE_CHECKING:
    from types import TracebackType

    from diffvqa.cache._shards import StagedShard
    from diffvqa.stages._decoding import VideoSource
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._extraction import Decoding

UNITS_AT_ONCE = 2


@dataclass(frozen=True)
class LocalDecoding:
    """Opens decode workers on this machine; plain values.

    Attributes:
        recipe: What to sample and cut.
        workers: Processes.
        timeout: Seconds that one video may take.
        memory: MiB of memory that a process may have.
        attempts: How often a video may end its process.
    """

    recipe: ExtractRecipe
    workers: int
    timeout: float
    memory: int
    attempts: int

    def __call__(self) -> AbstractContextManager[Decoding]:
        """Return a pool of decoding processes."""
        from diffvqa.stages._decode_pool import DecodePool

        return DecodePool(
            self.recipe, workers=self.workers, timeout=self.timeout, memory=self.memory, attempts=self.attempts
        )


class LocalEngine:
    """Has the work done on this machine.

    Args:
        places: One for each model; several are each given a process of their own.
        attempts: How often a unit, and then each of its videos alone, may end such a process.
    """

    def __init__(self, places: Sequence[Place], *, attempts: int) -> None:
        self._places = places
        self._attempts = attempts
        self._held = ExitStack()

    def __enter__(self) -> LocalEngine:
        return self

    def run(self, task: UnitTask, units: Iterable[WorkUnit], on_video: OnVideo) -> Iterator[DoneUnit]:
        """Yield the units as they are done; see :class:`~diffvqa.pipeline._engines.interface.Engine`."""
        if len(self._places) == 1:
            here = self._held.enter_context(_ThisProcess(task, self._places[0], on_video))
            yield from Dispatcher([here], attempts=1, ahead=UNITS_AT_ONCE).run(units)
            return
        from diffvqa.pipeline._engines.worker_process import WorkerProcess

        others: list[Workplace] = [self._held.enter_context(WorkerProcess(task, place)) for place in self._places]
        for done in Dispatcher(others, attempts=self._attempts, ahead=UNITS_AT_ONCE).run(units):
            for row in done.shard.rows:
                on_video(row.status == "failed")
            yield done

    @property
    def calls_at_once(self) -> int:
        """One."""
        return 1

    def submit(self, function: Callable[[Argument, CallPlace], Result], argument: Argument) -> Future[Result]:
        """Do the call, in this process; it is done when this returns.

        Raises:
            Exception: What it raised.
        """
        place = self._places[0]
        done: Future[Result] = Future()
        done.set_result(function(argument, CallPlace(place.device, place.threads)))
        return done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, traceback)


class _ThisProcess:
    """The model in this process; nothing that it dies of can be outlived."""

    def __init__(self, task: UnitTask, place: Place, on_video: OnVideo) -> None:
        self._task = task
        self._place = replace(place, on_video=on_video)

    def __enter__(self) -> _ThisProcess:
        with ExitStack() as held:
            self._threads = ThreadPoolExecutor(UNITS_AT_ONCE, thread_name_prefix="unit")
            held.callback(self._threads.shutdown, wait=True, cancel_futures=True)
            self._worker: UnitWorker = held.enter_context(self._task.open(self._place))
            held.callback(self._worker.stop)
            self._held = held.pop_all()
        return self

    def ready(self) -> Future[None]:
        there: Future[None] = Future()
        there.set_result(None)
        return there

    def submit(self, unit: WorkUnit) -> Future[StagedShard]:
        return self._threads.submit(self._worker.do, unit)

    def rehearse(self, video: VideoSource) -> Future[None]:
        return self._threads.submit(self._worker.rehearse, video)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, traceback)
