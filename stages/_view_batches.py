"""Batches that mix the views of several videos, and their features put together again, video by video."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages._decoding import DecodedVideo, FailedVideo
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._failures import FailureReason
from diffvqa.stages._seeding import derive_seed
from diffvqa.stages._view_extractor import StoredFeatures, ViewExtractor


@dataclass(frozen=True)
class ExtractedVideo:
    """One video's features.

    Attributes:
        decoded: What was sampled of it.
        arrays: Name -> (F, ...) array, as :func:`~diffvqa.stages._extraction.array_specs` describes them.
    """

    decoded: DecodedVideo
    arrays: dict[str, NDArray[Any]]


@dataclass
class _Unfinished:
    """A video whose views are on their way; ``parts`` are its features so far, in the order of its views."""

    decoded: DecodedVideo
    views: NDArray[np.uint8]
    seeds: list[int]
    taken: int = 0
    computed: int = 0
    parts: list[StoredFeatures] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return self.computed == len(self.views)


_Slices = list[tuple[_Unfinished, slice]]


class ViewBatches:
    """Takes decoded videos and gives back their features, in the same order.

    It holds the views of a batch and of one video more, and on a GPU a batch that the device is at work on.

    Args:
        extractor: The model, on its device.
        recipe: Of the extraction.
    """

    def __init__(self, extractor: ViewExtractor, recipe: ExtractRecipe) -> None:
        self._extractor = extractor
        self._recipe = recipe
        self._videos: deque[_Unfinished | FailedVideo] = deque()
        self._in_flight: deque[tuple[_Slices, Callable[[], StoredFeatures]]] = deque()

    def add(self, decoded: DecodedVideo | FailedVideo) -> None:
        """Take the next video; compute as many batches as its views fill."""
        if isinstance(decoded, FailedVideo):
            self._videos.append(decoded)
            return
        self._videos.append(_Unfinished(decoded, *_views_and_seeds(decoded, self._recipe)))
        while self._waiting_views() >= self._batch_size:
            self._compute(self._batch_size)

    def finished(self) -> Iterator[ExtractedVideo | FailedVideo]:
        """Yield the videos that are done and that no unfinished one was added before."""
        while self._videos:
            first = self._videos[0]
            if isinstance(first, _Unfinished) and not first.is_complete:
                return
            self._videos.popleft()
            yield first if isinstance(first, FailedVideo) else _put_together(first)

    def rest(self) -> Iterator[ExtractedVideo | FailedVideo]:
        """Compute all that is left, and yield it."""
        if waiting := self._waiting_views():
            self._compute(waiting)
        self._collect(leave=0)
        yield from self.finished()

    @property
    def _batch_size(self) -> int:
        return self._extractor.batch_size(self._recipe.view_size)

    def _waiting(self) -> Iterator[_Unfinished]:
        return (video for video in self._videos if isinstance(video, _Unfinished) and video.taken < len(video.views))

    def _waiting_views(self) -> int:
        return sum(len(video.views) - video.taken for video in self._waiting())

    def _compute(self, count: int) -> None:
        """Hand the next ``count`` waiting views to the device, and take what it has finished."""
        slices: _Slices = []
        for video in self._waiting():
            end = min(len(video.views), video.taken + count)
            slices.append((video, slice(video.taken, end)))
            count -= end - video.taken
            video.taken = end
            if not count:
                break
        views = np.concatenate([video.views[part] for video, part in slices])
        seeds = [seed for video, part in slices for seed in video.seeds[part]]
        self._in_flight.append((slices, self._extractor.submit(views, seeds)))
        self._collect(leave=self._extractor.batches_ahead)

    def _collect(self, *, leave: int) -> None:
        while len(self._in_flight) > leave:
            slices, finish = self._in_flight.popleft()
            features, begin = finish(), 0
            for video, part in slices:
                end = begin + part.stop - part.start
                video.parts.append(features.part(begin, end))
                video.computed = part.stop
                begin = end


def _views_and_seeds(decoded: DecodedVideo, recipe: ExtractRecipe) -> tuple[NDArray[np.uint8], list[int]]:
    """Return all views of a video, (F + F K, S, S, 3): its resized ones, then its crops; and the seed of each."""
    frames, crops = decoded.crop.shape[:2]
    views = np.concatenate([decoded.resize, decoded.crop.reshape(-1, *decoded.crop.shape[2:])])
    names = [(f, "resize") for f in range(frames)] + [(f, f"crop-{k}") for f in range(frames) for k in range(crops)]
    seeded_by = decoded.source.seeded_by()
    return views, [derive_seed(recipe.seed, seeded_by, frame, view) for frame, view in names]


def _put_together(video: _Unfinished) -> ExtractedVideo | FailedVideo:
    decoded, features = video.decoded, StoredFeatures.joined(video.parts)
    if not features.is_finite():
        return FailedVideo(decoded.source, FailureReason.NOT_FINITE, "the model's features overflow float16")
    frames, crops = decoded.crop.shape[:2]
    arrays: dict[str, NDArray[Any]] = {"resize/frames": decoded.resize, "crop/frames": decoded.crop}
    for name, array in (("latent", features.latent), ("multiscale", features.multiscale)):
        if array is not None:
            arrays[f"resize/{name}"] = array[:frames]
            arrays[f"crop/{name}"] = array[frames:].reshape(frames, crops, *array.shape[1:])
    return ExtractedVideo(decoded, arrays)
