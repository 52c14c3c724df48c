"""Batches of views through a backbone: precision, transfers to and from the device, and what fits its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffvqa.stages._backbones.interface import FeatureBackbone, ViewFeatures
from diffvqa.stages._errors import DeviceMemoryError
from diffvqa.stages._extract_recipe import Precision
from diffvqa.stages._finiteness import is_finite
from diffvqa.stages._torch_threads import torch_threads

logger = logging.getLogger(__name__)

_PIXELS_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}
_MOST_AT_ONCE = 4  # parts of a batch: more would wait for one another in Python
_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"


@dataclass(frozen=True)
class StoredFeatures:
    """Features of N views in the form in which they are kept.

    Attributes:
        latent: (N, C, h, w) float16, or None where the backbone has no latent.
        multiscale: (N, C_ms, g, g) float16.
    """

    latent: NDArray[np.float16] | None
    multiscale: NDArray[np.float16]

    @classmethod
    def joined(cls, parts: Sequence[StoredFeatures]) -> StoredFeatures:
        """Return the features of several lots of views, one after the other, copied."""
        latents = [part.latent for part in parts if part.latent is not None]
        return cls(np.concatenate(latents) if latents else None, np.concatenate([part.multiscale for part in parts]))

    def part(self, begin: int, end: int) -> StoredFeatures:
        """Return the features of the views from ``begin`` up to ``end``, sharing this one's memory."""
        return StoredFeatures(None if self.latent is None else self.latent[begin:end], self.multiscale[begin:end])

    def is_finite(self) -> bool:
        """Whether no value is infinite or not a number."""
        return all(is_finite(part) for part in (self.latent, self.multiscale) if part is not None)


class ViewExtractor:
    """Runs a backbone over views, as many at once as its device's memory holds.

    Args:
        backbone: On the device.
        device: Where it computes.
        precision: Of the networks' products; float32 or one that ``torch.autocast`` brings them to.
        batch_size: Most views in one call of the networks; None for a number that suits device and view size.
        side_by_side: Whether several threads may be in the backbone at once, which compiled networks do not allow.

    Attributes:
        backbone: The networks.
    """

    def __init__(
        self,
        backbone: FeatureBackbone,
        *,
        device: torch.device,
        precision: Precision = "float32",
        batch_size: int | None = None,
        side_by_side: bool = True,
    ) -> None:
        self.backbone = backbone
        self._device = device
        self._dtype: torch.dtype = getattr(torch, precision)
        self._batch_size = batch_size
        self._most_at_once = _MOST_AT_ONCE if side_by_side and device.type == "cpu" else 1

    @property
    def batches_ahead(self) -> int:
        """How many batches are best submitted before the result of one is asked for."""
        return int(self._device.type == "cuda")

    def batch_size(self, view_size: int) -> int:
        """Return how many views of this side one call of the networks takes; it shrinks when they do not fit."""
        if self._batch_size is None:
            self._batch_size = max(1, _PIXELS_AT_ONCE.get(self._device.type, 2**20) // view_size**2)
        return self._batch_size

    def __call__(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> StoredFeatures:
        """Return the features of any number of views.

        Args:
            views: (N, S, S, 3) uint8 RGB; at least one.
            seeds: One per view; its noise depends on nothing else.

        Raises:
            DeviceMemoryError: Not even one view fits the device's memory.
        """
        return self.submit(views, seeds)()

    def submit(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> Callable[[], StoredFeatures]:
        """Begin to compute the features of some views, as :meth:`__call__` does.

        Returns:
            Waits for them and returns them. On a GPU the device computes meanwhile; on a CPU they are there already.
        """
        pieces: list[Callable[[], StoredFeatures]] = []
        begin = 0
        while begin < len(views):
            end = begin + self.batch_size(views.shape[1])
            try:
                pieces.append(self._begin(views[begin:end], seeds[begin:end]))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._back_off(min(end, len(views)) - begin, views.shape[1])
                continue
            begin = end
        return pieces[0] if len(pieces) == 1 else lambda: StoredFeatures.joined([finish() for finish in pieces])

    def _begin(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> Callable[[], StoredFeatures]:
        """Compute a batch; on a CPU in parts side by side, each on its share of torch's threads.

        Two threads on the operations of one batch wait for each other at the end of each, and for decoding processes.
        """
        at_once = min(self._most_at_once, torch.get_num_threads(), len(views))
        if at_once == 1:
            return self._compute(views, seeds)
        parts, their_seeds = np.array_split(views, at_once), np.array_split(np.array(seeds), at_once)
        with torch_threads(torch.get_num_threads() // at_once), ThreadPoolExecutor(at_once) as pool:
            computed = list(pool.map(self._compute, parts, [part.tolist() for part in their_seeds]))
        features = StoredFeatures.joined([finish() for finish in computed])
        return lambda: features

    def _compute(self, views: NDArray[np.uint8], seeds: Sequence[int]) -> Callable[[], StoredFeatures]:
        reduced = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=reduced):
            features = self.backbone.extract(self._to_device(views), seeds)
        return self._to_host(features)

    def _to_device(self, views: NDArray[np.uint8]) -> Tensor:
        here = torch.from_numpy(views)
        return here.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else here

    def _to_host(self, features: ViewFeatures) -> Callable[[], StoredFeatures]:
        """Begin to copy the features from the device, and return what waits for the copy."""
        latent, multiscale = (
            None if part is None else _half_on_host(part) for part in (features.latent, features.multiscale)
        )
        assert multiscale is not None  # noqa: S101  # every backbone has it
        arrived = None
        if self._device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(torch.cuda.current_stream(self._device))

        def finish() -> StoredFeatures:
            if arrived is not None:
                arrived.synchronize()
            return StoredFeatures(None if latent is None else latent.numpy(), multiscale.numpy())

        return finish

    def _back_off(self, tried: int, view_size: int) -> None:
        """Halve the batch after ``tried`` views did not fit.

        Raises:
            DeviceMemoryError: It was one view alone.
        """
        if tried == 1:
            raise DeviceMemoryError(
                f"Not even one view of {view_size} x {view_size} pixels fits the memory of '{self._device}'.",
                "Choose a smaller extract.view_size, a smaller model or another --device.",
            )
        self._batch_size = tried // 2
        logger.warning("%d views at once do not fit the memory: going on with %d", tried, self._batch_size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on a CPU torch says so by the words of a RuntimeError alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_OUT_OF_MEMORY in str(error)


def _half_on_host(part: Tensor) -> Tensor:
    half = part.to(torch.float16)
    if half.device.type != "cuda":
        return half.contiguous()
    host = torch.empty(half.shape, dtype=half.dtype, pin_memory=True)
    return host.copy_(half, non_blocking=True)
