"""Tiny pictures, recipes and networks to train in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import Architecture, FitRecipe

TINY = Architecture(widths=(16, 16), attention=(False, True))
TINY_FIT = FitRecipe(
    steps=8,
    batch_size=4,
    crop_size=32,
    learning_rate=2e-3,
    ema=0.8,
    held_out=4,
    validate_every=4,
    checkpoint_every=3,
    region=96,
)


def synthetic_picture(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """Return smooth waves of random direction and colour, and a few sharp edges: (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    picture = np.zeros((side, side, 3))
    for _ in range(4):
        wave = np.sin(2 * np.pi * (rng.uniform(-3, 3) * rows + rng.uniform(-3, 3) * columns + rng.uniform()))
        picture += wave[..., None] * rng.uniform(-0.4, 0.4, 3)
    picture[rows > rng.uniform(0.3, 0.9)] += rng.uniform(-0.5, 0.5, 3)
    return np.asarray((picture + 1).clip(0, 2) * 127.5, dtype=np.uint8)


def synthetic_pictures(count: int = 8) -> TrainingPictures:
    """Return pictures to learn from and two to measure on."""
    made = tuple(synthetic_picture(seed) for seed in range(count + 2))
    return TrainingPictures(made[:count], made[count:], ())


def write_photos(folder: Path, count: int = 12, side: int = 96) -> Path:
    """Write pictures as PNG files and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(synthetic_picture(number, side)).save(folder / f"{number:02d}.png")
    return folder
