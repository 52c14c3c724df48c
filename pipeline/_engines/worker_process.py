"""A worker in a process of its own on this machine, such as one for each GPU; started again when it is lost."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from diffvqa.pipeline._engines.dispatch import WorkerLostError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import TracebackType

    from diffvqa.cache._shards import StagedShard
    from diffvqa.pipeline._engines.interface import Place, UnitTask, UnitWorker, WorkUnit
    from diffvqa.stages._decoding import VideoSource

_AT_ONCE = 2
_READY, _DO, _REHEARSE = "ready", "do", "rehearse"


class WorkerProcess:
    """One worker as its parent sees it; a context manager.

    Args:
        task: The work.
        place: Where it computes.
    """

    def __init__(self, task: UnitTask, place: Place) -> None:
        self._task = task
        self._place = place
        self._spawn = multiprocessing.get_context("spawn")
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._answers = threading.Thread()
        self._process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> WorkerProcess:
        return self

    def ready(self) -> Future[None]:
        """Start the process if it does not run; what is returned is done when it has loaded what it needs."""
        if self._process is None or not self._process.is_alive():
            self._start()
        return self._ask(_READY, None)

    def submit(self, unit: WorkUnit) -> Future[StagedShard]:
        """Have it do a unit."""
        return self._ask(_DO, unit)

    def rehearse(self, video: VideoSource) -> Future[None]:
        """Have it try a video."""
        return self._ask(_REHEARSE, video)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._answers.join()
            self._process.close()

    def _start(self) -> None:
        if self._process is not None:
            self._process.join()
            self._answers.join()
            self._process.close()
        self._connection, theirs = self._spawn.Pipe()
        self._process = self._spawn.Process(target=_serve, args=(theirs, self._task, self._place), daemon=False)
        self._process.start()
        theirs.close()
        self._answers = threading.Thread(target=self._take_answers, args=(self._connection,), daemon=True)
        self._answers.start()

    def _ask(self, what: str, about: object) -> Future[Any]:
        future: Future[Any] = Future()
        with self._guard:
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._connection.send((number, what, about))
            except OSError:
                del self._waiting[number]
                future.set_exception(WorkerLostError("its process is gone"))
        return future

    def _take_answers(self, connection: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, result, error = connection.recv()
                with self._guard:
                    future = self._waiting.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        with self._guard:
            lost, self._waiting = self._waiting, {}
            connection.close()
        for future in lost.values():
            future.set_exception(WorkerLostError("its process ended"))


def _serve(connection: Connection, task: UnitTask, place: Place) -> None:
    """Answer requests until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answering = threading.Lock()

    def answer(number: int, result: object, error: BaseException | None) -> None:
        with answering:
            connection.send((number, result, error))

    number, _, _ = connection.recv()  # the first one asks whether this is ready
    with ExitStack() as held:
        try:
            worker = held.enter_context(task.open(place))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the parent's to report
            answer(number, None, error)
            return
        answer(number, None, None)
        threads = held.enter_context(ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="unit"))
        with suppress(EOFError, OSError):
            while True:
                number, what, about = connection.recv()
                threads.submit(_answer_one, worker, number, what, about, answer)
        os._exit(1)  # nobody waits for what is being computed


def _answer_one(worker: UnitWorker, number: int, what: str, about: Any, answer: Any) -> None:
    result: object = None
    try:
        if what == _DO:
            result = worker.do(about)
        elif what == _REHEARSE:
            worker.rehearse(about)
    except Exception as error:  # noqa: BLE001  # likewise
        answer(number, None, error)
    else:
        answer(number, result, None)
