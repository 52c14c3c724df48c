"""Scores of videos from trained regressors: always over all crops, without dropout and without gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffvqa.stages.errors import RegressorFolderError
from diffvqa.stages.regressor import Prediction, Regressor
from diffvqa.stages.training_data import LoadedVideo, VideoBatch, collate, load_video

_VIDEOS_AT_ONCE = 4


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


def predict(regressors: Sequence[Regressor], features_of_one_video: Mapping[str, NDArray[Any]]) -> VideoScore:
    """Return the quality of one video, the mean over the regressors and over all its crops.

    Args:
        regressors: At least one, as trained on the splits of one data set, on one device; put in evaluation mode.
        features_of_one_video: As a :class:`~diffvqa.stages.training_data.FeatureSource` gives them.

    Raises:
        TrainingDataError: The features are incomplete or not finite.
        RegressorFolderError: The features have other shapes than those the regressors were trained on.
        ValueError: There are no regressors.
    """
    if not regressors:
        raise ValueError("At least one regressor is needed to predict.")
    video = load_video(features_of_one_video, "the video")
    for regressor in regressors:
        _check_shapes(regressor, video)
    batch = _with_every_crop([video], regressors[0])
    predictions = [_predict(regressor, batch) for regressor in regressors]
    scores = np.array([prediction.score.item() for prediction in predictions])
    return VideoScore(
        score=float(scores.mean()),
        score_std=float(scores.std()),
        frame_quality=torch.cat([prediction.frame_quality for prediction in predictions]).mean(0).cpu().numpy(),
        frame_weight=torch.cat([prediction.frame_weight for prediction in predictions]).mean(0).cpu().numpy(),
    )


def predict_scores(
    regressor: Regressor, videos: Mapping[str, LoadedVideo], video_ids: Sequence[str]
) -> dict[str, float]:
    """Return the score of each video, the mean over all its crops, in the order of the ids.

    Args:
        regressor: Put in evaluation mode.
        videos: Those of ``video_ids`` at least, with the shapes that the regressor was made for.
        video_ids: Whose scores to return.
    """
    scores: dict[str, float] = {}
    for first in range(0, len(video_ids), _VIDEOS_AT_ONCE):
        batch = video_ids[first : first + _VIDEOS_AT_ONCE]
        prediction = _predict(regressor, _with_every_crop([videos[video_id] for video_id in batch], regressor))
        scores.update(zip(batch, prediction.score.tolist(), strict=True))
    return scores


@torch.no_grad()
def _predict(regressor: Regressor, batch: VideoBatch) -> Prediction:
    regressor.eval()
    prediction: Prediction = regressor(batch)
    return prediction


def _with_every_crop(videos: Sequence[LoadedVideo], regressor: Regressor) -> VideoBatch:
    """Return the videos with all their crops, on the regressor's device."""
    return collate(videos, [range(video.crops) for video in videos], regressor.slope.device)


def _check_shapes(regressor: Regressor, video: LoadedVideo) -> None:
    if (regressor.resize_shape, regressor.crop_shape) != (video.resize_shape, video.crop_shape):
        raise RegressorFolderError(
            f"The regressor was trained on features of shapes {regressor.resize_shape} and {regressor.crop_shape}, "
            f"but these are {video.resize_shape} and {video.crop_shape}.",
            "Extract the video with the recipe that is stored beside the regressor.",
        )
