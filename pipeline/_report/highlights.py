"""The videos that a report shows one by one: the best, the worst, and those the model is most wrong about."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._report.charts import timeline
from diffvqa.pipeline._report.content import HeldOutVideo, TrainedModel
from diffvqa.stages._prediction import predict

_SHOWN = 4
_FRAMES = 4
_FRAMES_ARRAY = "resize/frames"
_LONGEST_SIDE = 128
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Highlight:
    """One video, as it is shown.

    Attributes:
        video: It, its label and its prediction.
        frames: Data URIs of some of its sampled frames, in its own proportions.
        timeline: Chart of the quality of its frames, by the regressor of the split that tested on it.
    """

    video: HeldOutVideo
    frames: tuple[str, ...]
    timeline: Markup


def highlights(trained: TrainedModel, features: FeatureCache, label: str) -> dict[str, list[Highlight]]:
    """Return the highest and the lowest predictions and the largest residuals among the held-out videos.

    Raises:
        CacheError: Their features are damaged.
    """
    chosen = {
        "Best": sorted(trained.held_out, key=lambda video: -video.predicted),
        "Worst": sorted(trained.held_out, key=lambda video: video.predicted),
        "Most surprising": sorted(trained.held_out, key=lambda video: -abs(video.residual)),
    }
    return {
        title: [_highlight(video, trained, features, label) for video in videos[:_SHOWN]]
        for title, videos in chosen.items()
    }


def _highlight(video: HeldOutVideo, trained: TrainedModel, features: FeatureCache, label: str) -> Highlight:
    arrays = features[video.video_id]
    regressor = trained.loaded.calibrated(trained.dataset)[video.split]
    predicted = predict([regressor], arrays)
    times = video.row.timestamps
    return Highlight(
        video=video,
        frames=_pictures(arrays[_FRAMES_ARRAY], video) if _FRAMES_ARRAY in arrays else (),
        timeline=timeline(f"Frames of {video.video_id}", predicted, times, label),
    )


def _pictures(frames: NDArray[np.uint8], video: HeldOutVideo) -> tuple[str, ...]:
    chosen = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    return tuple(_data_uri(frames[number], video.row.width, video.row.height) for number in chosen)


def _data_uri(view: NDArray[np.uint8], width: int, height: int) -> str:
    """Return a JPEG of a view, which is square, in the proportions of the video."""
    from PIL import Image

    scale = _LONGEST_SIDE / max(width, height, 1)
    size = (max(1, round(width * scale)), max(1, round(height * scale))) if width and height else view.shape[1::-1]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(view)).resize(size).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
