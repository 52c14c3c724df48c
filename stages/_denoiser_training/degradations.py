"""What spoils pictures in the world, as small functions of a severity: blur, noise, low light, compression, scaling."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
Degradation = Callable[[Picture, float, np.random.Generator], Picture]
"""Takes a picture, (H, W, 3) uint8 RGB, a severity in [0, 1], and what chance is taken from; the shape stays."""


def blur(picture: Picture, severity: float, _: np.random.Generator) -> Picture:
    """Gaussian blur, sigma up to 4 pixels."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(4.0 * severity)))


def noise(picture: Picture, severity: float, rng: np.random.Generator) -> Picture:
    """White Gaussian noise, sigma up to 50 of 255."""
    noisy = picture + 50.0 * severity * rng.standard_normal(picture.shape, np.float32)
    return np.asarray(noisy.round().clip(0, 255), dtype=np.uint8)


def low_light(picture: Picture, severity: float, rng: np.random.Generator) -> Picture:
    """Up to 16 times less light on the sensor, with the photons' and the sensor's own noise."""
    light = (picture / 255.0) ** 2.2 * 16.0**-severity
    photons = 2000.0
    counted = rng.poisson(light * photons) / photons + 0.002 * severity * rng.standard_normal(picture.shape)
    return np.asarray((counted.clip(0, 1) ** (1 / 2.2) * 255.0).round(), dtype=np.uint8)


def jpeg(picture: Picture, severity: float, _: np.random.Generator) -> Picture:
    """JPEG at a quality from 95 down to 5."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=round(95 - 90 * severity))
    return np.asarray(Image.open(file))


def h264(picture: Picture, severity: float, _: np.random.Generator) -> Picture:
    """One H.264 key frame, quantiser from 18 to 48, coded and decoded in memory."""
    import av
    from av.video.codeccontext import VideoCodecContext

    height, width = picture.shape[:2]
    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(encoder, VideoCodecContext)  # noqa: S101  # so are both codecs
    assert isinstance(decoder, VideoCodecContext)  # noqa: S101
    encoder.height, encoder.width = even.shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.thread_count = decoder.thread_count = 1
    encoder.options = {"preset": "veryfast", "tune": "zerolatency", "qp": str(round(18 + 30 * severity))}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoded = [out for packet in packets for out in decoder.decode(packet)]
    decoded += decoder.decode(None)
    return np.asarray(decoded[0].to_ndarray(format="rgb24")[:height, :width], dtype=np.uint8)


def downscale(picture: Picture, severity: float, _: np.random.Generator) -> Picture:
    """Shrunk up to 6 times, and enlarged again."""
    height, width = picture.shape[:2]
    factor = 1 + 5 * severity
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrunk = Image.fromarray(picture).resize(small, Image.Resampling.BICUBIC)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BICUBIC))


DEGRADATIONS: Mapping[str, Degradation] = MappingProxyType(
    {"blur": blur, "noise": noise, "low_light": low_light, "jpeg": jpeg, "h264": h264, "downscale": downscale}
)


def degrade_at_random(picture: Picture, names: Sequence[str], worst: float, rng: np.random.Generator) -> Picture:
    """Return the picture spoilt in one of several ways, by a random severity.

    Args:
        picture: (H, W, 3) uint8 RGB.
        names: Keys of :data:`DEGRADATIONS` to choose from.
        worst: The largest severity, in (0, 1].
        rng: What the choice and the severity are drawn from.
    """
    degradation = DEGRADATIONS[names[int(rng.integers(len(names)))]]
    return degradation(picture, float(rng.uniform(0.0, worst)), rng)
