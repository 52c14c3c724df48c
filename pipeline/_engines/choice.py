"""From settings to an engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from diffvqa.pipeline._engines.interface import Engine, Place

if TYPE_CHECKING:
    from diffvqa.pipeline._backbone import Backbone
    from diffvqa.pipeline._config import Settings
    from diffvqa.pipeline._engines.local import LocalDecoding
    from diffvqa.pipeline._engines.ray_engine import ClusterOptions


def choose_engine(settings: Settings, backbone: Backbone | None = None) -> Engine:
    """Return the engine that the runtime asks for; it is to be entered.

    Args:
        settings: Recipe and runtime.
        backbone: The model, where it is loaded in this process on the runtime's device.
    """
    runtime = settings.runtime
    if runtime.engine == "ray":
        from diffvqa.pipeline._engines.ray_engine import RayEngine

        return RayEngine(cluster_options(settings), _decoding(settings, workers=1))
    from diffvqa.pipeline._engines.local import LocalEngine

    devices = local_devices(settings)
    workers = max(1, runtime.workers // len(devices))
    decoding = _decoding(settings, workers=workers)
    loaded = backbone if len(devices) == 1 else None
    places = [Place(device, runtime.threads, decoding, backbone=loaded) for device in devices]
    return LocalEngine(places, attempts=runtime.attempts)


def computes_here(settings: Settings) -> bool:
    """Whether the model of an extraction is run in this very process."""
    return settings.runtime.engine == "local" and len(local_devices(settings)) == 1


def local_devices(settings: Settings) -> list[str]:
    """Return the device of each model on this machine."""
    runtime = settings.runtime
    if runtime.device in ("auto", "cuda"):
        import torch

        if gpus := torch.cuda.device_count():
            return [f"cuda:{number % gpus}" for number in range(runtime.model_workers or gpus)]
    return [runtime.device] * max(1, runtime.model_workers)


def cluster_options(settings: Settings) -> ClusterOptions:
    """Return how the settings have a Ray cluster used."""
    from diffvqa.pipeline._engines.ray_engine import ClusterOptions
    from diffvqa.stages._backbones.registry import own_folders

    runtime = settings.runtime
    return ClusterOptions(
        address=runtime.ray_address,
        workers=runtime.model_workers,
        device=runtime.device,
        threads=runtime.threads,
        threads_without_gpu=runtime.threads or os.cpu_count() or 1,
        decoders=runtime.ray_decoders,
        decoder_cpus=runtime.ray_decoder_cpus,
        attempts=runtime.attempts,
        environment=runtime.ray_environment,
        model_folders=own_folders(settings.extract.model),
    )


def _decoding(settings: Settings, *, workers: int) -> LocalDecoding:
    from diffvqa.pipeline._engines.local import LocalDecoding

    runtime = settings.runtime
    return LocalDecoding(
        settings.extract, workers, runtime.decode_timeout, runtime.decode_memory, attempts=runtime.attempts
    )
