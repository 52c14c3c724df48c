"""Handing units to workers that may be lost at any moment, and finding out which video is to blame if it is always one.

A unit whose worker is lost goes to whichever worker comes free first. After a set number of losses it is under
suspicion: its videos are rehearsed one by one, each alone on a worker. One that takes its worker along as often again
is given up, and the unit is done without it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from diffvqa.pipeline._engines.interface import DoneUnit, WorkUnit

if TYPE_CHECKING:
    from diffvqa.cache._shards import StagedShard
    from diffvqa.stages._decoding import VideoSource

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_COMPLAINTS = 60.0


class WorkerLostError(Exception):
    """A worker is gone, with all it had been given: killed, crashed, or its machine is not there any more."""


class Workplace(Protocol):
    """One worker, as those see it who hand out the work."""

    def ready(self) -> Future[None]:
        """Return what is done as soon as the worker can work, after a loss as soon as it can again."""
        ...

    def submit(self, unit: WorkUnit) -> Future[StagedShard]:
        """Have it do a unit; fails with ``WorkerLostError`` when the worker is lost."""
        ...

    def rehearse(self, video: VideoSource) -> Future[None]:
        """Have it try a single video; fails likewise."""
        ...


@dataclass
class _Job:
    """A unit on its way; while ``suspects`` are left, these are rehearsed."""

    unit: WorkUnit
    begun: int = 0
    losses: int = 0
    was_rehearsed: bool = False
    suspects: deque[VideoSource] = field(default_factory=deque)
    losses_of_first: int = 0


@dataclass
class _Seat:
    """A workplace and what it has been given."""

    workplace: Workplace
    getting_ready: Future[None] | None = None
    jobs: dict[Future[StagedShard] | Future[None], _Job] = field(default_factory=dict)
    is_rehearsing: bool = False


class Dispatcher:
    """Keeps workers busy.

    Args:
        workplaces: The workers.
        attempts: How often a unit, and then each of its videos alone, may lose its worker.
        ahead: Units that a worker may have at once: while it computes one it can begin to decode the next.
    """

    def __init__(self, workplaces: Sequence[Workplace], *, attempts: int, ahead: int = 2) -> None:
        self._seats = [_Seat(workplace) for workplace in workplaces]
        self._attempts = attempts
        self._ahead = ahead
        self._again: deque[_Job] = deque()
        self._to_rehearse: deque[_Job] = deque()

    def run(self, units: Iterable[WorkUnit]) -> Iterator[DoneUnit]:
        """Yield each unit as it is done."""
        coming = iter(units)
        for seat in self._seats:
            seat.getting_ready = seat.workplace.ready()
        while True:
            self._hand_out(coming)
            if not any(seat.jobs for seat in self._seats) and not (self._again or self._to_rehearse):
                upcoming = next(coming, None)
                if upcoming is None:
                    return
                self._again.append(_Job(upcoming))
            yield from self._take_in()

    def _hand_out(self, coming: Iterator[WorkUnit]) -> None:
        usable = [seat for seat in self._seats if seat.getting_ready is None and not seat.is_rehearsing]
        if self._to_rehearse and usable:
            # One worker is kept free of other work until it can be risked.
            alone = min(usable, key=lambda seat: len(seat.jobs))
            usable.remove(alone)
            if not alone.jobs:
                job = self._to_rehearse.popleft()
                alone.is_rehearsing = True
                alone.jobs[alone.workplace.rehearse(job.suspects[0])] = job
        # By turns, so that the last units are not all with one worker.
        for load in range(self._ahead):
            for seat in usable:
                if len(seat.jobs) != load:
                    continue
                following = self._next_job(coming)
                if following is None:
                    return
                following.begun += 1
                seat.jobs[seat.workplace.submit(following.unit)] = following

    def _next_job(self, coming: Iterator[WorkUnit]) -> _Job | None:
        if self._again:
            return self._again.popleft()
        unit = next(coming, None)
        return None if unit is None else _Job(unit)

    def _take_in(self) -> Iterator[DoneUnit]:
        """Wait for anything to end, and deal with all that did."""
        seat_of: dict[Future[StagedShard] | Future[None], _Seat] = {}
        for seat in self._seats:
            seat_of |= dict.fromkeys(seat.jobs, seat)
            if seat.getting_ready is not None:
                seat_of[seat.getting_ready] = seat
        ended, _ = wait(list[Future[Any]](seat_of), timeout=_SECONDS_BETWEEN_COMPLAINTS, return_when=FIRST_COMPLETED)
        if not ended and all(seat.getting_ready is not None for seat in self._seats):
            logger.warning("no worker is there; waiting for one")
        for future in ended:
            seat = seat_of[future]
            if future is seat.getting_ready:
                self._let_in(seat)
                continue
            job = seat.jobs.pop(future)
            was_rehearsal, seat.is_rehearsing = seat.is_rehearsing, False
            try:
                shard = future.result()
            except WorkerLostError as error:
                self._note_loss(job, error, was_rehearsal=was_rehearsal)
                if seat.getting_ready is None:
                    seat.getting_ready = seat.workplace.ready()
                continue
            if was_rehearsal:
                self._clear_first_suspect(job)
            elif shard is not None:
                yield DoneUnit(job.unit, shard, job.begun)

    def _let_in(self, seat: _Seat) -> None:
        assert seat.getting_ready is not None  # noqa: S101  # as the caller looked
        try:
            seat.getting_ready.result()
            seat.getting_ready = None
        except WorkerLostError:
            seat.getting_ready = seat.workplace.ready()

    def _note_loss(self, job: _Job, error: WorkerLostError, *, was_rehearsal: bool) -> None:
        if was_rehearsal:
            job.losses_of_first += 1
            first = job.suspects[0]
            logger.warning("the worker of %s was lost (%s)", first.video_id, error)
            if job.losses_of_first < self._attempts:
                self._to_rehearse.append(job)
                return
            job.unit = replace(job.unit, given_up=job.unit.given_up | {first.video_id})
            logger.warning("%s ended its worker %d times and is given up", first.video_id, self._attempts)
            self._clear_first_suspect(job)
            return
        job.losses += 1
        logger.warning(
            "the worker of unit %d (%d videos from %s on) was lost (%s); it is done again",
            job.unit.number,
            len(job.unit.videos),
            job.unit.videos[0].video_id,
            error,
        )
        if job.losses < self._attempts:
            self._again.append(job)
            return
        left = [video for video in job.unit.videos if video.video_id not in job.unit.given_up]
        job.losses = 0
        if job.was_rehearsed:  # each can be done alone, and together they cannot
            job.unit = replace(job.unit, given_up=frozenset(video.video_id for video in job.unit.videos))
            self._again.append(job)
            return
        job.was_rehearsed = True
        job.suspects.extend(left)
        self._to_rehearse.append(job)

    def _clear_first_suspect(self, job: _Job) -> None:
        job.suspects.popleft()
        job.losses_of_first = 0
        (self._to_rehearse if job.suspects else self._again).append(job)
