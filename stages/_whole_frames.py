"""Whole frames of a video or photograph, for a look at what a model makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffvqa.stages._decoding import DecodedVideo, VideoSource, decode_video

if TYPE_CHECKING:
    from diffvqa.stages._sampling import Sampling


def decode_whole_frames(source: VideoSource, sampling: Sampling) -> DecodedVideo:
    """Decode the recipe's sample of a file to whole frames, the one crop of each, shrunk to the size of a view.

    Run in a decode worker.

    Args:
        source: The file.
        sampling: Which frames; ``view_size`` is the longest side that they may have, larger ones are shrunk to it.

    Returns:
        The video with ``crop`` (F, 1, H, W, 3), and no resized views.

    Raises:
        VideoUnusableError: The file cannot be used.
        MemoryError: There is not enough memory for it.
    """
    import numpy as np
    from PIL import Image

    from diffvqa.stages._decoders.video_index import index_video

    index = index_video(source.path)
    longest = max(index.width, index.height)
    decoded = decode_video(source, replace(sampling, view_size=longest, crops=1))
    frames = decoded.crop[:, 0, : decoded.height, : decoded.width]
    if longest > sampling.view_size:
        height, width = (max(1, round(side * sampling.view_size / longest)) for side in frames.shape[1:3])
        shrink = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
        frames = np.stack([np.asarray(frame) for frame in shrink])
    return replace(decoded, resize=decoded.resize[:, :0, :0], crop=np.ascontiguousarray(frames[:, None]))
