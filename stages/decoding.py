"""From a video file to its views; what a decode worker does for one video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffvqa.stages.extract_recipe import ExtractRecipe
from diffvqa.stages.frames import FailureReason, centre_frames, open_video
from diffvqa.stages.views import crop_views, place_crops, resize_view


@dataclass(frozen=True)
class VideoSource:
    """A video to be decoded.

    Attributes:
        video_id: Its key.
        path: Its file.
        seed_key: What its crops and noise are seeded from, in the video id's place; None for the id itself.
    """

    video_id: str
    path: Path
    seed_key: str | None = None

    def seeded_by(self) -> str:
        """Return what stands for this video when seeds are derived."""
        return self.video_id if self.seed_key is None else self.seed_key


@dataclass(frozen=True)
class DecodedVideo:
    """The views of one video.

    Attributes:
        source: Which video.
        resize: (F, S, S, 3) uint8 RGB, whole frames.
        crop: (F, K, S, S, 3) uint8 RGB, native-resolution crops.
        frame_indices: (F,) int64, in presentation order.
        timestamps: (F,) float64, seconds.
        crop_positions: (K, 2) int64, (top, left) in pixels.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        decoder: Name and version.
    """

    source: VideoSource
    resize: NDArray[np.uint8]
    crop: NDArray[np.uint8]
    frame_indices: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    crop_positions: NDArray[np.int64]
    height: int
    width: int
    decoder: str


@dataclass(frozen=True)
class FailedVideo:
    """A video that cannot be used.

    Attributes:
        source: Which video.
        reason: The kind of failure.
        detail: One line, the decoder's own words where it had any.
    """

    source: VideoSource
    reason: FailureReason
    detail: str


def decode_video(source: VideoSource, recipe: ExtractRecipe) -> DecodedVideo:
    """Sample a video's frames and cut their views; no more than one full frame is held at a time.

    Raises:
        VideoUnusableError: The video is missing, empty, unreadable or has no picture.
    """
    video = open_video(source.path)
    indices = centre_frames(video.times, recipe.frames)
    resized, crops, placement = [], [], None
    for frame in video.decode(indices):
        height, width = frame.shape[:2]
        if placement is None:
            placement = place_crops(
                source.seeded_by(), height, width, crops=recipe.crops, view_size=recipe.view_size, seed=recipe.seed
            )
        resized.append(resize_view(frame, recipe.view_size))
        crops.append(crop_views(frame, placement))
    assert placement is not None  # noqa: S101  # centre_frames gives at least one frame
    return DecodedVideo(
        source=source,
        resize=np.stack(resized),
        crop=np.stack(crops),
        frame_indices=indices,
        timestamps=video.times.starts[indices],
        crop_positions=placement.positions,
        height=height,
        width=width,
        decoder=video.decoder,
    )


def in_one_line(message: str, *, longest: int = 300) -> str:
    """Return a decoder's message without source positions, addresses and line breaks, cut to ``longest`` characters."""
    without_positions = re.sub(r"(\[\d\d:\d\d:\d\d\] )?\S*/src/\S+\.cc:\d+: ", "", message)
    without_addresses = re.sub(r" @ 0x[0-9a-f]+", "", without_positions)
    line = "; ".join(part.strip() for part in without_addresses.splitlines() if part.strip())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
