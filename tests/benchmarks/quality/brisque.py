"""The 36 features of BRISQUE (Mittal, Moorthy & Bovik, 2012): natural-scene statistics of the luminance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special

Array = NDArray[np.float64]

_WINDOW_SIGMA, _WINDOW_RADIUS = 7 / 6, 3
_SHAPES = np.arange(0.2, 10.0, 0.001)
# Of a generalised Gaussian of each shape: (E|x|)^2 / E x^2.
_RATIOS = special.gamma(2 / _SHAPES) ** 2 / (special.gamma(1 / _SHAPES) * special.gamma(3 / _SHAPES))
_TINY = 1e-12  # stands in for nothing where a picture is flat, and is divided by
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def brisque_features(picture: NDArray[np.uint8]) -> Array:
    """Return the features of a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.

    Returns:
        (36,) float64: at full and at half size, shape and variance of the normalised luminance, and shape, mean and
        both variances of the products of neighbours, in four directions.
    """
    luminance = Image.fromarray(picture).convert("L").convert("F")
    half = luminance.resize((luminance.width // 2, luminance.height // 2), Image.Resampling.BICUBIC)
    return np.concatenate([_statistics(np.asarray(scale, np.float64)) for scale in (luminance, half)])


def _statistics(luminance: Array) -> Array:
    normalised = _normalised(luminance)
    features = [_shape_of(normalised), float(normalised.var())]
    for shift in _NEIGHBOURS:
        features += _asymmetric_fit(normalised * np.roll(normalised, shift, axis=(0, 1)))
    return np.array(features)


def _normalised(luminance: Array) -> Array:
    """Return the mean-subtracted, contrast-normalised luminance."""
    offsets = np.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1)
    window = np.exp(-0.5 * (offsets / _WINDOW_SIGMA) ** 2)
    window /= window.sum()

    def smoothed(values: Array) -> Array:
        along_rows: Array = ndimage.correlate1d(values, window, axis=0, mode="constant")
        both: Array = ndimage.correlate1d(along_rows, window, axis=1, mode="constant")
        return both

    mean = smoothed(luminance)
    deviation = np.sqrt(np.abs(smoothed(luminance**2) - mean**2))
    return (luminance - mean) / (deviation + 1.0)


def _shape_of(values: Array) -> float:
    ratio = np.abs(values).mean() ** 2 / max(values.var(), _TINY)
    return float(_SHAPES[np.argmin(np.abs(1 / _RATIOS - 1 / max(ratio, _TINY)))])


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0


def _asymmetric_fit(products: Array) -> list[float]:
    """Return shape, mean, left and right variance of the asymmetric generalised Gaussian that fits."""
    left, right = _root_mean_square(products[products < 0]), _root_mean_square(products[products >= 0])
    skew = left / max(right, _TINY)
    ratio = np.abs(products).mean() ** 2 / max((products**2).mean(), _TINY)
    generalised = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_RATIOS - generalised) ** 2)])
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    mean = scale * (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
    return [shape, float(mean), float(left**2), float(right**2)]
