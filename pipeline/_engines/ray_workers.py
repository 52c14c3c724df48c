"""What runs on the nodes of a Ray cluster: model workers, and the decode workers of each, as actors."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from diffvqa.pipeline._engines.interface import Place, UnitTask, UnitWorker, WorkUnit
from diffvqa.pipeline._engines.ray_parcels import Parcel, unpacked
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages._failures import FailureReason

if TYPE_CHECKING:
    from types import TracebackType

    from diffvqa.cache._shards import StagedShard
    from diffvqa.pipeline._engines.local import LocalDecoding

_IN_FLIGHT_PER_DECODER = 2
_LONGEST_START_S = 120.0


@dataclass(frozen=True)
class RayPlace:
    """What a model worker is told of where it computes; plain values.

    Attributes:
        device: As in ``runtime.device``.
        threads: CPU threads to compute with.
        decoding: How each of its decode workers decodes.
        decoders: Number of its decode workers.
        decoder_cpus: CPUs that each of them reserves.
        parcels: Weights, by the name that the recipe has for them.
        scratch: Purpose of the scratch folders they are unpacked into.
    """

    device: str
    threads: int
    decoding: LocalDecoding
    decoders: int
    decoder_cpus: float
    parcels: Mapping[str, Parcel]
    scratch: str


class ModelWorker:
    """The actor that computes units; it owns its decode workers, which end with it.

    Args:
        task: The work.
        where: Where it is done.
        group: Holds the resources of this worker, then those of each of its decode workers.
    """

    def __init__(self, task: UnitTask, where: RayPlace, group: Any) -> None:
        self._task = task
        self._where = where
        self._group = group
        self._opening = threading.Lock()
        self._held = ExitStack()
        self._worker: UnitWorker | None = None

    def ready(self) -> str:
        """Load what the work needs; return the name of the machine."""
        self._opened()
        return os.uname().nodename

    def do(self, unit: WorkUnit) -> StagedShard:
        """Compute a unit and write its data."""
        with _ending_without_decoders():
            return self._opened().do(unit)

    def rehearse(self, video: VideoSource) -> None:
        """Do the same with one video and keep nothing."""
        with _ending_without_decoders():
            self._opened().rehearse(video)

    def _opened(self) -> UnitWorker:
        with self._opening:
            if self._worker is None:
                decoding = partial(RayDecoding, self._where, self._group)
                with unpacked(
                    self._where.parcels, self._where.scratch
                ) as folders:  # once they are loaded the files are of no use any more
                    place = Place(self._where.device, self._where.threads, decoding, model_folders=folders)
                    self._worker = self._held.enter_context(self._task.open(place))
            return self._worker


class DecodersLostError(Exception):
    """The decode workers of a model worker do not answer: their machine is gone, and no other has room for them."""


@contextmanager
def _ending_without_decoders() -> Iterator[None]:
    try:
        yield
    except DecodersLostError:
        os._exit(1)  # Ray starts it anew, where there are resources for all of it


class RayDecoding:
    """Decodes videos in actors of their own, wherever the cluster has CPUs for them; a context manager.

    Args:
        where: How many, and how they decode.
        group: Holds their resources.
    """

    def __init__(self, where: RayPlace, group: Any) -> None:
        self._where = where
        self._group = group
        self._turn = itertools.count()

    def __enter__(self) -> RayDecoding:
        attempts = self._where.decoding.attempts
        actor: Any = ray.remote(DecodeWorker)
        self._actors = [
            actor.options(
                num_cpus=self._where.decoder_cpus,
                max_restarts=-1,
                max_task_retries=attempts - 1,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=1 + number
                ),
            ).remote(self._where.decoding)
            for number in range(self._where.decoders)
        ]
        return self

    def run(self, sources: Iterable[VideoSource]) -> Iterator[DecodedVideo | FailedVideo]:
        """Yield every video decoded or failed, in the order given, decoding ahead a bounded number of them.

        Raises:
            DecodersLostError: They do not answer any more.
        """
        ahead: deque[tuple[VideoSource, Any]] = deque()
        for source in sources:
            actor = self._actors[next(self._turn) % len(self._actors)]
            ahead.append((source, actor.decode.remote(source)))
            if len(ahead) >= len(self._actors) * _IN_FLIGHT_PER_DECODER:
                yield self._result(*ahead.popleft())
        while ahead:
            yield self._result(*ahead.popleft())

    def _result(self, source: VideoSource, decoded: Any) -> DecodedVideo | FailedVideo:
        decoding = self._where.decoding
        # Two units may each have as many before this one with the same worker.
        longest = _LONGEST_START_S + 2 * _IN_FLIGHT_PER_DECODER * decoding.attempts * decoding.timeout
        try:
            result: DecodedVideo | FailedVideo = ray.get(decoded, timeout=longest)
        except GetTimeoutError as error:
            raise DecodersLostError from error
        except RayActorError:
            detail = f"its decode worker was lost {decoding.attempts} times"
            return FailedVideo(source, FailureReason.CRASHED, detail)
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)


class DecodeWorker:
    """The actor that decodes, one video at a time, in a disposable process of its own.

    Args:
        decoding: Limits, and what to sample.
    """

    def __init__(self, decoding: LocalDecoding) -> None:
        self._pool = decoding().__enter__()

    def decode(self, source: VideoSource) -> DecodedVideo | FailedVideo:
        """Decode one video; whatever it does to its process, this returns."""
        (decoded,) = self._pool.run([source])
        return decoded
