"""Pictures made here in place of the photographs: shapes and colours, spoilt by a known amount, scored by it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from diffvqa.stages._denoiser_training.degradations import degrade_at_random

_SIDE = 64


def write_stand_in(folder: Path, *, pictures: int = 48) -> None:
    """Write ``images/`` and ``labels.csv``; the score falls with how much a picture was spoilt.

    Args:
        folder: Where to.
        pictures: How many.
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_name", "mos"))
        for number in range(pictures):
            worst = float(rng.uniform(0.05, 1.0))
            smooth = ndimage.gaussian_filter(rng.standard_normal((_SIDE, _SIDE, 3)), (3, 3, 0))
            picture = ((smooth > np.quantile(smooth, 0.6)) * 160 + rng.integers(0, 90, 3)).astype(np.uint8)
            spoilt = degrade_at_random(picture, ("blur", "noise"), worst, rng)
            name = f"ss0{1 + number % 3}_{number}.png"
            Image.fromarray(spoilt).save(folder / "images" / name)
            writer.writerow((name, round(1.0 - worst, 4)))
