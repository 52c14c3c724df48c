"""Decoded videos and backbones made in code: extraction without videos and without networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffvqa.stages._backbones.interface import Level, ViewFeatures
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe

CPU = torch.device("cpu")


def decoded(video_id: str, recipe: ExtractRecipe, frames: int | None = None) -> DecodedVideo:
    """A video of random pixels that its id decides."""
    count, size = frames or recipe.frames, recipe.view_size
    rng = np.random.default_rng(list(video_id.encode()))
    return DecodedVideo(
        source=VideoSource(video_id, Path(f"{video_id}.mp4")),
        resize=rng.integers(0, 256, (count, size, size, 3), np.uint8),
        crop=rng.integers(0, 256, (count, recipe.crops, size, size, 3), np.uint8),
        frame_indices=np.arange(count),
        timestamps=np.arange(count) / 25,
        crop_positions=np.zeros((recipe.crops, 2), np.int64),
        height=size,
        width=size,
        decoder="none",
    )


class DecodedAlready:
    """Gives what was decoded before, by id."""

    def __init__(self, videos: Iterable[DecodedVideo | FailedVideo]) -> None:
        self._videos = {video.source.video_id: video for video in videos}

    def run(self, sources: Iterable[VideoSource]) -> Iterator[DecodedVideo | FailedVideo]:
        return (self._videos[source.video_id] for source in sources)


class SimpleBackbone:
    """Features that can be told by looking: a view's mean colour and its seed.

    Args:
        view_multiple: As it says of itself.
        latent: Whether it has one.
        fits: Most views that do not raise ``error``; None for any number.
        error: What it raises above that.
    """

    def __init__(
        self,
        *,
        view_multiple: int = 1,
        latent: bool = True,
        fits: int | None = None,
        error: Exception | None = None,
        kind: str = "simple",
    ) -> None:
        self.view_multiple = view_multiple
        self.latent_shape = (1, 2, 2) if latent else None
        self.levels = (Level("colour", 3), Level("seed", 1))
        self.fingerprint: Mapping[str, str] = {kind: "0123"}
        self.batches: list[int] = []
        self._fits = fits
        self._error = error

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        self.batches.append(len(views))
        if self._fits is not None and len(views) > self._fits:
            assert self._error is not None
            raise self._error
        seed = torch.tensor([value % 1024 for value in seeds], dtype=torch.float32)[:, None]
        colour = views.float().mean((1, 2))
        latent = None if self.latent_shape is None else seed[:, :, None, None].expand(-1, 1, 2, 2)
        return ViewFeatures(latent, torch.cat([colour, seed], dim=1)[:, :, None, None])
