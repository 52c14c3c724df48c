"""What the verbs that train have in common."""

from __future__ import annotations

from collections.abc import Callable

from diffvqa.pipeline._backbone import choose_device, use_threads
from diffvqa.pipeline._config import Runtime
from diffvqa.stages._training import FitStates, TrainingSetup

_GIB = 2**30


def training_setup(
    runtime: Runtime, journal: FitStates | None = None, on_epoch: Callable[[], None] = lambda: None
) -> TrainingSetup:
    """Return where a training computes, as the runtime says; this process then computes with the runtime's threads.

    Args:
        runtime: Device, memory and threads.
        journal: Of the training; None to keep nothing.
        on_epoch: Called after each epoch.

    Raises:
        ConfigError: The device is not there.
    """
    use_threads(runtime)
    return TrainingSetup(
        device=choose_device(runtime.device),
        memory_limit=feature_memory(runtime),
        threads=runtime.threads,
        journal=journal,
        on_epoch=lambda _fit, _record: on_epoch(),
    )


def feature_memory(runtime: Runtime) -> int:
    """Return the bytes of features that may be kept in memory."""
    return int(runtime.feature_memory * _GIB)
