"""Features of the photographs: caches, several joined to one, and vectors for a regressor that takes no maps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._config import Settings
from diffvqa.pipeline._extract import extract
from diffvqa.stages._network_maps import NetworkMaps, network_maps
from diffvqa.stages._texture import LatentTexture

from .photographs import DATASET

Array = NDArray[np.float64]

STORED_MANTISSA_BITS = 10  # of float16

_VIEWS = ("resize", "crop")


class PhotographFeatures:
    """The features of one or several caches of the same photographs, as one source.

    Args:
        caches: ``multiscale`` has the channels of all, one after the other; the rest is that of the first that has it.
        with_std: False leaves out the channels of standard deviations.
        mantissa_bits: The values of ``multiscale`` are rounded to so many bits, as if stored so; 10 are stored.
    """

    def __init__(
        self, caches: Sequence[FeatureCache], *, with_std: bool = True, mantissa_bits: int = STORED_MANTISSA_BITS
    ) -> None:
        self.caches = tuple(caches)
        self._with_std = with_std
        self._mantissa_bits = mantissa_bits
        maps = [_maps_of(cache) for cache in caches]
        self._maps = maps if with_std else [NetworkMaps(each.means, 0) for each in maps]

    @property
    def digests(self) -> list[str]:
        """What the features are a function of."""
        read_as = [str(self._with_std)]
        if self._mantissa_bits < STORED_MANTISSA_BITS:
            read_as.append(f"{self._mantissa_bits} bits")
        return [cache.header.fingerprint_digest for cache in self.caches] + read_as

    def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one photograph."""
        every = [cache[video_id] for cache in self.caches]
        joined: dict[str, NDArray[Any]] = {}
        for view in _VIEWS:
            joined[f"{view}/multiscale"] = np.concatenate(
                [
                    self._rounded(arrays[f"{view}/multiscale"][..., : maps.channels, :, :])
                    for arrays, maps in zip(every, self._maps, strict=True)
                ],
                axis=-3,
            )
            for part in ("latent", "frames"):
                having = next((arrays for arrays in every if f"{view}/{part}" in arrays), None)
                if having is not None:
                    joined[f"{view}/{part}"] = having[f"{view}/{part}"]
        return joined

    @property
    def networks(self) -> tuple[NetworkMaps, ...]:
        """What of ``multiscale`` comes from each cache."""
        return tuple(self._maps)

    def frames(self, video_id: str, view: str) -> NDArray[Any]:
        """Return the pixels of the views of one photograph."""
        return self.caches[0][video_id][f"{view}/frames"]

    def _rounded(self, maps: NDArray[Any]) -> NDArray[Any]:
        if self._mantissa_bits == STORED_MANTISSA_BITS:
            return maps
        mantissa, exponent = np.frexp(maps.astype(np.float32))
        steps = 2.0 ** (self._mantissa_bits + 1)  # frexp's mantissa has its first bit behind the point
        return np.ldexp(np.round(mantissa * steps) / steps, exponent).astype(maps.dtype)

    def vectors(self, names: Sequence[str], *, views: Sequence[str] = _VIEWS) -> list[Array]:
        """Return one vector per photograph: mean and deviation of every map over the view, averaged over the crops.

        Args:
            names: Of the photographs.
            views: Which views.

        Returns:
            For each cache, (len(names), features) float64.
        """
        return [
            np.stack([np.concatenate(list(self._vector(cache[name], maps.means, views))) for name in names])
            for cache, maps in zip(self.caches, self._maps, strict=True)
        ]

    def textures(self, names: Sequence[str], *, views: Sequence[str] = _VIEWS) -> list[Array]:
        """Return the textures of the latents, averaged over the crops, as ``ours`` sees them.

        Args:
            names: Of the photographs.
            views: Which views.

        Returns:
            For each cache with a latent, (len(names), numbers of the views) float64.
        """
        having = [cache for cache in self.caches if f"{views[0]}/latent" in {spec.name for spec in cache.header.arrays}]
        return [np.stack([self._texture(cache[name], views) for name in names]) for cache in having]

    @staticmethod
    def _texture(arrays: Mapping[str, NDArray[Any]], views: Sequence[str]) -> Array:
        latents = [torch.from_numpy(arrays[f"{view}/latent"]) for view in views]
        return np.concatenate([_over_views(LatentTexture.of(latent).whole.double().numpy()) for latent in latents])

    def _vector(self, arrays: Mapping[str, NDArray[Any]], count: int, views: Sequence[str]) -> Iterator[Array]:
        for view in views:
            maps = self._rounded(arrays[f"{view}/multiscale"]).astype(np.float64)
            means = maps[..., :count, :, :]
            mean = means.mean(axis=(-2, -1))
            yield _over_views(mean)
            if self._with_std:
                # The deviation over the whole view, from that of its cells and that of their means.
                squares = means**2 + maps[..., count:, :, :] ** 2
                yield _over_views(np.sqrt(np.maximum(squares.mean(axis=(-2, -1)) - mean**2, 0.0)))


class VectorFeatures:
    """One vector per photograph as a map of one place, beside the pixels of the views.

    Args:
        vectors: By photograph, (features,) float64.
        pixels: Features that come with the pixels of the views.
    """

    def __init__(self, vectors: Mapping[str, Array], pixels: PhotographFeatures) -> None:
        self._vectors = vectors
        self._pixels = pixels

    def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one photograph."""
        place = self._vectors[video_id].astype(np.float16)[:, None, None]
        arrays: dict[str, NDArray[Any]] = {}
        for view in _VIEWS:
            frames = self._pixels.frames(video_id, view)
            arrays[f"{view}/frames"] = frames
            arrays[f"{view}/multiscale"] = np.broadcast_to(place, (*frames.shape[:-3], *place.shape))
        return arrays


def _over_views(values: Array) -> Array:
    averaged: Array = values.reshape(-1, values.shape[-1]).mean(axis=0)
    return averaged


def _maps_of(cache: FeatureCache) -> NetworkMaps:
    """Return how many channels are means and deviations; each kind lies together, in the same order."""
    spec = next(spec for spec in cache.header.arrays if spec.name == "resize/multiscale")
    networks = network_maps(spec.levels)
    if len(networks) != 1:
        raise ValueError(f"{cache.url} holds features of several networks; join their caches instead")
    return networks[0]


def extracted(settings: Settings, cache: Path) -> FeatureCache:
    """Return the cache of the photographs' features, made or completed where need be."""
    begun = time.process_time()
    summary = extract(DATASET, settings, cache=cache)
    if summary.failures:
        raise RuntimeError(f"{cache}: {len(summary.failures)} photographs failed, first {summary.failures[0]}")
    if summary.extracted:
        before = _Cost.of(cache) or _Cost(0.0, 0)
        spent = _Cost(before.seconds + time.process_time() - begun, before.photographs + summary.extracted)
        atomic_write_text(_Cost.file(cache), json.dumps(asdict(spent)))
    return FeatureCache(cache)


def seconds_per_photograph(cache: Path) -> float:
    """Return the CPU seconds that the process with the networks took for each photograph; NaN where unknown."""
    cost = _Cost.of(cache)
    return cost.seconds / cost.photographs if cost else math.nan


@dataclass(frozen=True)
class _Cost:
    """What it took to make a cache."""

    seconds: float
    photographs: int

    @classmethod
    def of(cls, cache: Path) -> _Cost | None:
        return cls(**json.loads(cls.file(cache).read_text())) if cls.file(cache).is_file() else None

    @staticmethod
    def file(cache: Path) -> Path:
        return cache.with_name(f"{cache.name}.cost.json")
