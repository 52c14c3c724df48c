"""A Ray cluster as an engine.

Ray places the workers, books their CPUs and GPUs, starts them again when they are lost, grows the cluster where it can,
and carries code, weights and decoded videos to them. What is left to do here is to hand out units and to take in what
came of them, because a unit whose worker is lost must not wait for that worker's return.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffvqa.pipeline._engines.dispatch import Dispatcher, WorkerLostError
from diffvqa.pipeline._engines.interface import Argument, CallPlace, DoneUnit, OnVideo, Result, UnitTask, WorkUnit
from diffvqa.pipeline._errors import ClusterError

if TYPE_CHECKING:
    from types import TracebackType

    from diffvqa.cache._shards import StagedShard
    from diffvqa.pipeline._engines.local import LocalDecoding
    from diffvqa.pipeline._engines.ray_workers import RayPlace
    from diffvqa.stages._decoding import VideoSource

logger = logging.getLogger(__name__)

_UNITS_AT_ONCE = 2
_LONGEST_CLEARING_S = 60.0
_BROKEN = "A worker of the Ray cluster cannot be started"
_LOOK_THERE = "Look into the logs of Ray, and whether its nodes have memory enough."
_LOOK = "Check that every node has the packages that diffvqa needs; its own code is sent along."


@dataclass(frozen=True)
class ClusterOptions:
    """How a cluster is used.

    Attributes:
        address: Of the cluster, ``HOST:PORT``; ``auto`` for the one this machine is part of; empty to begin one here.
        workers: Model workers; 0 for as many as the cluster has room for.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU for each model worker if the cluster has any.
        threads: CPUs that a model worker reserves and computes with; 0: 1 beside a GPU, else the next.
        threads_without_gpu: See there.
        decoders: Decode workers of each model worker.
        decoder_cpus: CPUs that each of them reserves.
        attempts: How often a unit, a video alone and a call may lose their worker.
        environment: Names of environment variables that workers get from here.
        model_folders: Folders of weights that are to be sent to the workers, by the name that the recipe has for them.
    """

    address: str = ""
    workers: int = 0
    device: str = "auto"
    threads: int = 0
    threads_without_gpu: int = 1
    decoders: int = 2
    decoder_cpus: float = 1.0
    attempts: int = 3
    environment: tuple[str, ...] = ()
    model_folders: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shape:
    """GPUs and CPU threads of each model worker, and how many there are."""

    gpus: int
    threads: int
    workers: int


class RayEngine:
    """Has the work done by a Ray cluster.

    Args:
        options: Which cluster, and how much of it.
        decoding: How each decode worker decodes.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or has no room for a single worker.
    """

    def __init__(self, options: ClusterOptions, decoding: LocalDecoding) -> None:
        self._options = options
        self._decoding = decoding
        self._held = ExitStack()

    def __enter__(self) -> RayEngine:
        with ExitStack() as held:
            held.enter_context(connected(self._options))
            self._held = held.pop_all()
        return self

    def run(self, task: UnitTask, units: Iterable[WorkUnit], on_video: OnVideo) -> Iterator[DoneUnit]:
        """Yield the units as they are done; see :class:`~diffvqa.pipeline._engines.interface.Engine`."""
        from diffvqa.pipeline._engines.ray_parcels import Parcel
        from diffvqa.pipeline._engines.ray_workers import RayPlace

        shape = self._shape(self._options.decoders, self._options.threads_without_gpu)
        where = RayPlace(
            device="cuda" if shape.gpus else "cpu",
            threads=shape.threads,
            decoding=self._decoding,
            decoders=self._options.decoders,
            decoder_cpus=self._options.decoder_cpus,
            parcels={name: Parcel.of(folder) for name, folder in self._options.model_folders.items()},
            scratch=f"models-{secrets.token_hex(4)}",
        )
        with ExitStack() as held:
            if where.parcels:
                held.callback(_clear_scratch, where.scratch)
            places = [held.enter_context(_ModelWorkerSeat(task, where, shape.gpus)) for _ in range(shape.workers)]
            for done in Dispatcher(places, attempts=self._options.attempts, ahead=_UNITS_AT_ONCE).run(units):
                for row in done.shard.rows:
                    on_video(row.status == "failed")
                yield done

    @property
    def calls_at_once(self) -> int:
        """As many as model workers without decode workers, of a thread each where the settings name no number."""
        return self._shape_of_calls.workers

    def submit(self, function: Callable[[Argument, CallPlace], Result], argument: Argument) -> Future[Result]:
        """Have a call done as a Ray task, which is begun again elsewhere when its worker is lost."""
        import ray

        shape = self._shape_of_calls
        call = ray.remote(num_cpus=shape.threads, num_gpus=shape.gpus, max_retries=self._options.attempts - 1)(function)
        place = CallPlace("cuda" if shape.gpus else "cpu", shape.threads)
        lost = f"A worker of the Ray cluster was lost {self._options.attempts} times with the same work"
        return _future_of(call.remote(argument, place), loss=lambda kind: ClusterError(f"{lost}: {kind}.", _LOOK_THERE))

    @functools.cached_property
    def _shape_of_calls(self) -> _Shape:
        return self._shape(decoders=0, threads_without_gpu=1)

    def _shape(self, decoders: int, threads_without_gpu: int) -> _Shape:
        """Return what the cluster has room for."""
        options = self._options
        total = _resources()
        has_gpus = total.get("GPU", 0) >= 1
        needs_gpus = options.device.startswith("cuda")
        if needs_gpus and not has_gpus and not options.workers:
            raise ClusterError("The cluster has no GPU.", "Use --device cpu, or --set runtime.model_workers=N to wait.")
        gpus = int(needs_gpus or (has_gpus and options.device != "cpu"))
        threads = options.threads or (1 if gpus else threads_without_gpu)
        if options.workers:
            return _Shape(gpus, threads, options.workers)
        nodes = _nodes()
        room = sum(
            min(int(node.get("CPU", 0) // threads), int(node.get("GPU", 0)) if gpus else 2**31) for node in nodes
        )
        workers = min(room, int(total.get("CPU", 0) // (threads + decoders * options.decoder_cpus)))
        if workers < 1:
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            raise ClusterError(
                f"The cluster has {len(nodes)} node(s) and {total.get('CPU', 0):g} CPUs, at most {largest:g} on one: "
                f"no room for a worker of {threads} thread(s) with {decoders} decoder(s).",
                "Lower runtime.threads or runtime.ray_decoders, or give runtime.model_workers to wait for more nodes.",
            )
        return _Shape(gpus, threads, workers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, traceback)


def connected(options: ClusterOptions) -> ExitStack:
    """Connect this process to a cluster until the block ends, sending this software's code along.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    from diffvqa.cache._scratch import scratch_folder
    from diffvqa.pipeline._engines.ray_parcels import copy_code

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError("Ray is not installed.", "Install it with: pip install 'diffvqa[ray]'.") from error
    with ExitStack() as held:
        code = copy_code(held.enter_context(scratch_folder("code")))
        environment = {name: os.environ[name] for name in options.environment if name in os.environ}
        try:
            ray.init(
                address=options.address or "local",
                runtime_env={"py_modules": [str(code)], "env_vars": environment},
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=None if options.address else False,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            what = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise ClusterError(
                f"The Ray cluster at {options.address or 'this machine'} cannot be used: {what}.",
                "Check the address, and that it runs the same versions of Ray and Python.",
            ) from error
        held.callback(ray.shutdown)
        return held.pop_all()


class _ModelWorkerSeat:
    """One model worker with the resources that are reserved for it and for its decode workers; a context manager."""

    def __init__(self, task: UnitTask, where: RayPlace, gpus: int) -> None:
        self._task = task
        self._where = where
        self._gpus = gpus

    def __enter__(self) -> _ModelWorkerSeat:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from diffvqa.pipeline._engines.ray_workers import ModelWorker

        own: dict[str, float] = {"CPU": self._where.threads, **({"GPU": self._gpus} if self._gpus else {})}
        decoder: dict[str, float] = {"CPU": self._where.decoder_cpus}
        self._group = placement_group([own, *[decoder] * self._where.decoders], strategy="PACK")
        actor: Any = ray.remote(ModelWorker)
        self._actor = actor.options(
            num_cpus=self._where.threads,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_concurrency=_UNITS_AT_ONCE + 1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0),
        ).remote(self._task, self._where, self._group)
        return self

    def ready(self) -> Future[None]:
        # Ray tries this one until the worker, started anew, has answered.
        return _future_of(self._actor.ready.options(max_task_retries=-1).remote(), death=_BROKEN)

    def submit(self, unit: WorkUnit) -> Future[StagedShard]:
        return _future_of(self._actor.do.remote(unit))

    def rehearse(self, video: VideoSource) -> Future[None]:
        return _future_of(self._actor.rehearse.remote(video))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        ray.kill(self._actor)
        remove_placement_group(self._group)


def _clear_scratch(purpose: str) -> None:
    """Remove from every node what workers that were killed while they loaded their model have left there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from diffvqa.cache._scratch import remove_all

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    clear = ray.remote(num_cpus=0)(remove_all)
    clearing = [
        clear.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(purpose)
        for node in nodes
        if node["Alive"]
    ]
    ray.wait(clearing, num_returns=len(clearing), timeout=_LONGEST_CLEARING_S)


def _resources() -> dict[str, float]:
    """Return what the whole cluster has."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def _nodes() -> list[dict[str, float]]:
    """Return what each node that is alive has."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _future_of(reference: Any, *, death: str = "", loss: Callable[[str], Exception] = WorkerLostError) -> Future[Any]:
    """Return what Ray will give for a reference, its errors told apart: the worker's loss, and what the work raised.

    Args:
        reference: To the result of an actor's method, or of a task.
        death: What it means if the actor is dead for good; empty where that is a loss like any other.
        loss: The error that tells of a loss, from a word on its kind.
    """
    from ray.exceptions import ActorDiedError, RayError, RayTaskError, RuntimeEnvSetupError

    future: Future[Any] = Future()

    def take_over(theirs: Future[Any]) -> None:
        error = theirs.exception()
        if error is None:
            future.set_result(theirs.result())
        elif isinstance(error, RayTaskError):
            future.set_exception(error.cause)
        elif isinstance(error, RuntimeEnvSetupError) or (death and isinstance(error, ActorDiedError)):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            future.set_exception(ClusterError(f"{death or _BROKEN}: {' '.join(lines[:1] + lines[-1:])}", _LOOK))
        elif isinstance(error, RayError):
            future.set_exception(loss(type(error).__name__))
        else:
            future.set_exception(error)

    reference.future().add_done_callback(take_over)
    return future
