from __future__ import annotations

import math

import numpy as np
import pytest
from training_material import synthetic_picture

from diffvqa.stages._denoiser_training.degradations import DEGRADATIONS
from diffvqa.stages._picture_metrics import peak_signal_to_noise_ratio, structural_similarity
from diffvqa.stages._side_by_side import error_map, picture_grid

REFERENCE = synthetic_picture(1, side=64)


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg"])
def test_psnr_and_ssim_are_those_of_scikit_image(name: str) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    picture = DEGRADATIONS[name](REFERENCE, 0.5, np.random.default_rng(0))
    expected = metrics.peak_signal_noise_ratio(REFERENCE, picture)
    assert peak_signal_to_noise_ratio(picture, REFERENCE) == pytest.approx(expected)
    luma = [each @ np.array([0.299, 0.587, 0.114]) for each in (picture, REFERENCE)]
    expected = metrics.structural_similarity(
        *luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert structural_similarity(picture, REFERENCE) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_as_alike_as_can_be() -> None:
    assert math.isinf(peak_signal_to_noise_ratio(REFERENCE, REFERENCE))
    assert structural_similarity(REFERENCE, REFERENCE) == pytest.approx(1.0)
    assert not error_map(REFERENCE, REFERENCE).any()


def test_the_grid_shows_frame_reconstruction_and_error_side_by_side() -> None:
    frame, made = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 90, np.uint8)
    grid = picture_grid([(frame, made), (frame, frame)])
    assert grid.shape == (8 + 4 + 8, 3 * 8 + 2 * 4, 3)
    assert grid[0, 0].tolist() == [100] * 3
    assert grid[0, 12].tolist() == [90] * 3
    assert grid[0, 24].tolist() == [40] * 3
    assert grid[-1, 24].tolist() == [0] * 3
    assert grid[9, 0].tolist() == [255] * 3
