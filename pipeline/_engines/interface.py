"""What an engine is: it has work units done somewhere, and gives back what came of each.

A unit is a shard. Whoever does it reads its videos, computes, and writes the shard's data; the shard exists once the
driver, who alone holds the run, has put its mark there. A unit may therefore be done twice, and is published once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from diffvqa.cache._shards import StagedShard
    from diffvqa.pipeline._backbone import Backbone
    from diffvqa.pipeline._config import Runtime
    from diffvqa.stages._decoding import VideoSource
    from diffvqa.stages._extraction import Decoding

Argument = TypeVar("Argument")
Result = TypeVar("Result")

OnVideo = Callable[[bool], None]


def ignore_video(_failed: bool) -> None:
    """Do nothing about a video that is through."""


@dataclass(frozen=True)
class WorkUnit:
    """The videos of one shard.

    Attributes:
        number: What the unit is known by; its shards are numbered so.
        videos: In the order of their rows.
        given_up: Ids of those that ended their worker again and again; they get a row that says so and are not touched.
    """

    number: int
    videos: tuple[VideoSource, ...]
    given_up: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DoneUnit:
    """A unit whose data is written.

    Attributes:
        unit: As it was done in the end.
        shard: What it made, to be published by the driver.
        attempts: How often it was begun.
    """

    unit: WorkUnit
    shard: StagedShard
    attempts: int


@dataclass(frozen=True)
class Place:
    """Where a worker finds itself.

    Attributes:
        device: As in ``runtime.device``.
        threads: CPU threads to compute with; 0 for PyTorch's own choice.
        decoding: Opens what decodes for the worker.
        model_folders: Where weights were put on this machine, by the name that the recipe has for them; those of other
            names are found by their name.
        backbone: The model where it is loaded already.
        on_video: To be told of every video as soon as it is through, with whether it failed.
    """

    device: str
    threads: int
    decoding: Callable[[], AbstractContextManager[Decoding]]
    model_folders: Mapping[str, Path] = field(default_factory=dict)
    backbone: Backbone | None = None
    on_video: OnVideo = ignore_video


@dataclass(frozen=True)
class CallPlace:
    """Where a call finds itself.

    Attributes:
        device: As in ``runtime.device``.
        threads: CPU threads to compute with; 0 for PyTorch's own choice.
    """

    device: str
    threads: int

    def applied_to(self, runtime: Runtime) -> Runtime:
        """Return the runtime as it is here."""
        return runtime.model_copy(update={"device": self.device, "threads": self.threads})


class UnitWorker(Protocol):
    """Does units; several may be given to it at once, each from a thread of its own."""

    def do(self, unit: WorkUnit) -> StagedShard:
        """Compute a unit and write its data."""
        ...

    def rehearse(self, video: VideoSource) -> None:
        """Do with one video all that :meth:`do` does with it, and keep nothing: does it end its worker?"""
        ...

    def stop(self) -> None:
        """Let go of what is being done, soon; nobody waits for it any more."""
        ...


class UnitTask(Protocol):
    """The work itself, as plain values that can be sent to another process."""

    def open(self, place: Place) -> AbstractContextManager[UnitWorker]:
        """Load what the work needs."""
        ...


class Engine(Protocol):
    """Has work done; a context manager that holds whoever does it."""

    def __enter__(self) -> Engine:
        """Reach for the workers."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of them; what they still did is dropped."""
        ...

    def run(self, task: UnitTask, units: Iterable[WorkUnit], on_video: OnVideo) -> Iterator[DoneUnit]:
        """Yield the units as they are done, in any order; units are taken from the iterable as workers come free.

        Args:
            task: What is to be done with them.
            units: Any number.
            on_video: Called once for every video of them, with whether it failed, at the latest with its unit.
        """
        ...

    @property
    def calls_at_once(self) -> int:
        """How many calls there is room for."""
        ...

    def submit(self, function: Callable[[Argument, CallPlace], Result], argument: Argument) -> Future[Result]:
        """Have a call done, once, by whoever has room for it.

        Args:
            function: Importable by name; must not rely on this process.
            argument: Plain values, or what opens itself anew where it is sent.
        """
        ...


def as_done(
    engine: Engine, function: Callable[[Argument, CallPlace], Result], arguments: Iterable[Argument]
) -> Iterator[tuple[int, Result]]:
    """Yield (place in ``arguments``, result) of every call as it is done, in any order.

    Args:
        engine: Entered.
        function: As :meth:`Engine.submit` takes it.
        arguments: Taken as there is room.
    """
    coming = iter(enumerate(arguments))
    running: dict[Future[Result], int] = {}
    while True:
        for number, argument in itertools.islice(coming, engine.calls_at_once - len(running)):
            running[engine.submit(function, argument)] = number
        if not running:
            return
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            yield running.pop(future), future.result()
