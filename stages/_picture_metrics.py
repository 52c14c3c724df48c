"""How alike two pictures are: PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_WHITE = 255.0
_SIGMA = 1.5
_RADIUS = 5
_C1, _C2 = (0.01 * _WHITE) ** 2, (0.03 * _WHITE) ** 2
_LUMA = np.array([0.299, 0.587, 0.114])


def peak_signal_to_noise_ratio(picture: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the PSNR over all values, in dB; infinite for equal pictures.

    Args:
        picture: uint8, any shape.
        reference: Of the same shape.
    """
    error = float(np.mean((picture.astype(np.float64) - reference) ** 2))
    return math.inf if error == 0 else 10 * math.log10(_WHITE**2 / error)


def structural_similarity(picture: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the mean SSIM of the luma, in [-1, 1], as Wang et al. define it: a Gaussian window of sigma 1.5, 11 wide.

    Args:
        picture: (H, W, 3) uint8 RGB, no side shorter than 11.
        reference: Of the same shape.
    """
    x, y = picture @ _LUMA, reference @ _LUMA
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    similarity = structure * (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return float(similarity[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())


def _smooth(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(picture, _SIGMA, radius=_RADIUS), dtype=np.float64)
