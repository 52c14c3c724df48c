"""The two kinds of view of a frame: resized (semantics) and native-resolution crops (distortion)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffvqa.stages._seeding import derive_seed


@dataclass(frozen=True)
class CropPlacement:
    """Where the crops of a video lie, the same in all of its frames, so that differences over time are the content's.

    Attributes:
        positions: (K, 2) int64, (top, left) in pixels of the frame after :func:`pad_to_view`.
        view_size: Side of a crop in pixels (S).
    """

    positions: NDArray[np.int64]
    view_size: int


def place_crops(video_id: str, height: int, width: int, *, crops: int, view_size: int, seed: int) -> CropPlacement:
    """Choose K random places, each seeded from (seed, video id, crop).

    Args:
        video_id: Of the video.
        height: Of its frames, in pixels.
        width: Of its frames, in pixels.
        crops: How many (K).
        view_size: Side in pixels (S).
        seed: Of the recipe.
    """
    highest = np.maximum(np.array([height, width]) - view_size, 0) + 1
    places = [np.random.default_rng(derive_seed(seed, video_id, f"crop-{k}")).integers(highest) for k in range(crops)]
    return CropPlacement(np.stack(places), view_size)


def resize_view(frame: NDArray[np.uint8], view_size: int) -> NDArray[np.uint8]:
    """Return the whole frame as (S, S, 3) uint8: bicubic, with the antialiasing that shrinking needs.

    Args:
        frame: (H, W, 3) uint8 RGB.
        view_size: S in pixels.
    """
    return np.asarray(Image.fromarray(frame).resize((view_size, view_size), Image.Resampling.BICUBIC))


def crop_views(frame: NDArray[np.uint8], placement: CropPlacement) -> NDArray[np.uint8]:
    """Return the crops of a frame, untouched pixels, as (K, S, S, 3) uint8.

    Args:
        frame: (H, W, 3) uint8 RGB.
        placement: Where they lie.
    """
    size = placement.view_size
    padded = pad_to_view(frame, size)
    return np.stack([padded[top : top + size, left : left + size] for top, left in placement.positions])


def pad_to_view(frame: NDArray[np.uint8], view_size: int) -> NDArray[np.uint8]:
    """Return the frame mirrored at its bottom and right edges up to S x S where it is smaller, else unchanged.

    Scaling up instead would change the distortion that crops are there to show.
    """
    missing = [(0, max(0, view_size - extent)) for extent in frame.shape[:2]]
    if not any(after for _, after in missing):
        return frame
    return np.pad(frame, (*missing, (0, 0)), mode="symmetric")
