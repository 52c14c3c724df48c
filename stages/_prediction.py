"""Scores of videos from trained regressors, without dropout and without gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffvqa.stages._calibration import Calibration
from diffvqa.stages._errors import RegressorFolderError
from diffvqa.stages._prefetching import prefetched
from diffvqa.stages._regressor import Prediction, Regressor
from diffvqa.stages._training_data import LoadedVideo, VideoBatch, collate, load_video

_VIEWS_AT_ONCE = 32  # of each video one is resized and the others are crops


@dataclass(frozen=True)
class CalibratedRegressor:
    """A trained regressor with the line that brings its raw scores to a label scale."""

    regressor: Regressor
    calibration: Calibration


@dataclass(frozen=True)
class VideoScore:
    """The predicted quality of one video, the mean over the regressors and the crops, on the label scale.

    Attributes:
        score: The quality.
        score_std: Standard deviation (population) of the regressors' scores; 0 for one regressor.
        frame_quality: (F,) float32.
        frame_weight: (F,) float32 in [0, 1], sums to one.
    """

    score: float
    score_std: float
    frame_quality: NDArray[np.float32]
    frame_weight: NDArray[np.float32]


def predict(regressors: Sequence[CalibratedRegressor], features_of_one_video: Mapping[str, NDArray[Any]]) -> VideoScore:
    """Return the quality of one video, the mean over the regressors and over all its crops.

    Args:
        regressors: At least one, as trained on the splits of one data set, on one device; put in evaluation mode.
        features_of_one_video: As a :class:`~diffvqa.stages._training_data.FeatureSource` gives them.

    Raises:
        TrainingDataError: The features are incomplete or not finite.
        RegressorFolderError: The features have other shapes than those the regressors were trained on.
        ValueError: There are no regressors.
    """
    if not regressors:
        raise ValueError("At least one regressor is needed to predict.")
    video = load_video(features_of_one_video, "the video")
    for each in regressors:
        check_shapes(each.regressor, video)
    batch = collate([video], [range(video.crops)], regressors[0].regressor.device)
    predictions = [_predict(each.regressor, batch) for each in regressors]
    lines = [each.calibration for each in regressors]
    scores = np.array([line(raw.score.item()) for line, raw in zip(lines, predictions, strict=True)])
    qualities = [line.slope * raw.frame_quality + line.intercept for line, raw in zip(lines, predictions, strict=True)]
    return VideoScore(
        score=float(scores.mean()),
        score_std=float(scores.std()),
        frame_quality=torch.cat(qualities).mean(0).cpu().numpy(),
        frame_weight=torch.cat([raw.frame_weight for raw in predictions]).mean(0).cpu().numpy(),
    )


def predict_raw(
    regressor: Regressor,
    videos: Mapping[str, LoadedVideo],
    video_ids: Sequence[str],
    *,
    crops: int | None = None,
    kernel_quality: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Return the raw score of each video, the mean over its crops, in the order of the ids.

    Args:
        regressor: Put in evaluation mode.
        videos: Those of ``video_ids`` at least, with the shapes that the regressor was made for.
        video_ids: Whose scores to return.
        crops: How many of its crops are looked at, the first ones; all when None.
        kernel_quality: By id (F,) float32, what the kernel part is to say of videos that it was fitted to.
    """

    def prepare(ids: Sequence[str]) -> list[tuple[list[str], VideoBatch]]:
        loaded = [(video_id, videos[video_id]) for video_id in ids]
        batches = []
        for taken, same in itertools.groupby(loaded, key=lambda each: min(each[1].crops, crops or each[1].crops)):
            names, parts = zip(*same, strict=True)
            known = [kernel_quality[name] for name in names] if kernel_quality else None
            batches.append((list(names), collate(parts, [range(taken)] * len(parts), regressor.device, known)))
        return batches

    scores: dict[str, float] = {}
    first = videos[video_ids[0]].crops if video_ids else 1
    at_once = max(1, _VIEWS_AT_ONCE // (1 + min(first, crops or first)))
    for batches in prefetched(prepare, _in_pieces(video_ids, at_once)):
        for names, batch in batches:
            scores.update(zip(names, _predict(regressor, batch).score.tolist(), strict=True))
    return scores


def check_shapes(regressor: Regressor, video: LoadedVideo) -> None:
    """Make sure that a regressor was made for such features.

    Raises:
        RegressorFolderError: It was not.
    """
    if (regressor.resize_shape, regressor.crop_shape) != (video.resize_shape, video.crop_shape):
        raise RegressorFolderError(
            f"The regressor was trained on features of shapes {regressor.resize_shape} and {regressor.crop_shape}, "
            f"but these are {video.resize_shape} and {video.crop_shape}.",
            "Extract the video with the recipe that is stored beside the regressor.",
        )


@torch.inference_mode()
def _predict(regressor: Regressor, batch: VideoBatch) -> Prediction:
    regressor.eval()
    prediction: Prediction = regressor(batch)
    return prediction


def _in_pieces(video_ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(video_ids), size):
        yield video_ids[first : first + size]
