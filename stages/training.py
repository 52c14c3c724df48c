"""Training of the regressor on cached features: one regressor per random split, each tested once."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffvqa.stages.errors import TrainingDataError
from diffvqa.stages.losses import quality_loss
from diffvqa.stages.metrics import (
    Metrics,
    correlation_metrics,
    median_metrics,
    pearson_correlation,
    spearman_correlation,
)
from diffvqa.stages.prediction import VideoScore, predict, predict_scores
from diffvqa.stages.regressor import Prediction, Regressor
from diffvqa.stages.seeding import derive_seed
from diffvqa.stages.splits import Split, make_splits
from diffvqa.stages.train_recipe import TrainRecipe
from diffvqa.stages.training_data import (
    FeatureSource,
    LoadedVideo,
    VideoSample,
    collate,
    input_statistics,
    load_videos,
)

__all__ = [
    "CrossValidation",
    "EpochRecord",
    "FeatureSource",
    "TrainedSplit",
    "VideoSample",
    "VideoScore",
    "predict",
    "train_all",
    "train_regressor",
]

logger = logging.getLogger(__name__)

_WARM_UP_SHARE = 0.1
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class EpochRecord:
    """One point of the training curve.

    Attributes:
        epoch: From 0.
        learning_rate: At the end of the epoch.
        train_loss: Mean over the epoch's batches.
        validation_srcc: NaN where it is undefined.
        validation_plcc: Raw; NaN where it is undefined.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_srcc: float
    validation_plcc: float


@dataclass(frozen=True)
class TrainedSplit:
    """A regressor trained on one split.

    Attributes:
        split: Which videos it was trained, validated and tested on.
        regressor: With the best epoch's weights, calibrated, in evaluation mode.
        best_epoch: The epoch of highest validation SRCC + PLCC, the earliest of equals; the last where none is defined.
        validation: Of the calibrated regressor on the validation part.
        test: Of the calibrated regressor on the test part, which was used for nothing else.
        test_true: The scores of the test part by video id.
        test_predicted: The predictions for the test part by video id, on the label scale.
        curve: One record per epoch.
    """

    split: Split
    regressor: Regressor
    best_epoch: int
    validation: Metrics
    test: Metrics
    test_true: Mapping[str, float]
    test_predicted: Mapping[str, float]
    curve: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class CrossValidation:
    """The regressors of all splits."""

    splits: tuple[TrainedSplit, ...]

    def median(self) -> Metrics:
        """Return the median over the splits of each test metric."""
        return median_metrics([trained.test for trained in self.splits])


def train_all(
    features: FeatureSource,
    samples: Sequence[VideoSample],
    recipe: TrainRecipe,
    device: torch.device,
    on_epoch: Callable[[int, EpochRecord], None] = lambda _split, _record: None,
) -> CrossValidation:
    """Train and test one regressor on each of the recipe's random splits.

    Args:
        features: Read once per video.
        samples: The videos and their labels.
        recipe: Of the splits, the regressor and its training.
        device: Where to compute.
        on_epoch: Called after each epoch with the split's number and the epoch's record.

    Raises:
        TrainingDataError: Fewer than three contents, missing, constant or repeated labels, or unusable features.
    """
    _check_samples(samples)
    splits = make_splits({sample.video_id: sample.group for sample in samples}, recipe)
    videos = load_videos(features, (sample.video_id for sample in samples))

    def train(split: Split) -> TrainedSplit:
        return _train_split(videos, samples, split, recipe, device, lambda record: on_epoch(split.index, record))

    return CrossValidation(tuple(train(split) for split in splits))


def train_regressor(
    features: FeatureSource,
    samples: Sequence[VideoSample],
    split: Split,
    recipe: TrainRecipe,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None] = lambda _record: None,
) -> TrainedSplit:
    """Train a regressor on one split and test it once.

    The same recipe, split and features on the same machine give the same numbers. The state of the global random number
    generators is left as it was.

    Args:
        features: Read once per video.
        samples: The videos and their labels; those outside the split are not read.
        split: Which videos to train, validate and test on.
        recipe: Of the regressor and its training.
        device: Where to compute.
        on_epoch: Called after each epoch with its record.

    Raises:
        TrainingDataError: Missing, constant or repeated labels, fewer than two videos to train on, or unusable
            features.
    """
    used = {*split.train, *split.validation, *split.test}
    samples = [sample for sample in samples if sample.video_id in used]
    _check_samples(samples)
    videos = load_videos(features, (sample.video_id for sample in samples))
    return _train_split(videos, samples, split, recipe, device, on_epoch)


def _train_split(
    videos: Mapping[str, LoadedVideo],
    samples: Sequence[VideoSample],
    split: Split,
    recipe: TrainRecipe,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> TrainedSplit:
    scores = {sample.video_id: sample.score for sample in samples}
    _check_split(split, scores)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(recipe.seed, "regressor", split.index))
        regressor = _build_regressor(videos, split, recipe).to(device)
        best_epoch, curve = _fit(regressor, videos, scores, split, recipe, device, on_epoch)
    _calibrate(regressor, videos, scores, (*split.train, *split.validation))

    validation = predict_scores(regressor, videos, split.validation)
    test = predict_scores(regressor, videos, split.test)
    test_true = {video_id: scores[video_id] for video_id in split.test}
    logger.info("split %d: epoch %d of %d was the best", split.index, best_epoch, recipe.epochs)
    return TrainedSplit(
        split=split,
        regressor=regressor,
        best_epoch=best_epoch,
        validation=correlation_metrics([scores[video_id] for video_id in split.validation], list(validation.values())),
        test=correlation_metrics(list(test_true.values()), list(test.values())),
        test_true=test_true,
        test_predicted=test,
        curve=curve,
    )


def _build_regressor(videos: Mapping[str, LoadedVideo], split: Split, recipe: TrainRecipe) -> Regressor:
    train = [videos[video_id] for video_id in split.train]
    regressor = Regressor(recipe, train[0].resize_shape, train[0].crop_shape)
    regressor.set_input_statistics(
        resize=input_statistics([video.resize for video in train]),
        crop=input_statistics([video.crop for video in train]),
    )
    return regressor


def _fit(
    regressor: Regressor,
    videos: Mapping[str, LoadedVideo],
    scores: Mapping[str, float],
    split: Split,
    recipe: TrainRecipe,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> tuple[int, tuple[EpochRecord, ...]]:
    """Train on the training part, leave the weights that do best on the validation part; return their epoch."""
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "batches", split.index))
    steps = recipe.epochs * len(_batch_sizes(len(split.train), recipe.batch_size))
    optimizer = torch.optim.AdamW(_parameter_groups(regressor, recipe.weight_decay), lr=recipe.learning_rate)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_at(step, steps))
    validation_true = [scores[video_id] for video_id in split.validation]
    best_epoch, best_value, best_weights = recipe.epochs - 1, -math.inf, None
    curve = []
    for epoch in range(recipe.epochs):
        regressor.train()
        losses = []
        for batch in _random_batches(split.train, recipe.batch_size, generator):
            chosen = [videos[video_id] for video_id in batch]
            crops = [[_random_index(video.crops, generator)] for video in chosen]
            target = torch.tensor([scores[video_id] for video_id in batch], device=device)
            predicted: Prediction = regressor(collate(chosen, crops, device))
            loss = quality_loss(predicted.score, target, recipe.plcc_weight, recipe.rank_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            nn.utils.clip_grad_norm_(regressor.parameters(), _GRADIENT_NORM)
            optimizer.step()
            rate.step()
            losses.append(loss.item())
        validated = list(predict_scores(regressor, videos, split.validation).values())
        record = EpochRecord(
            epoch=epoch,
            learning_rate=float(rate.get_last_lr()[0]),
            train_loss=float(np.mean(losses)),
            validation_srcc=spearman_correlation(validation_true, validated),
            validation_plcc=pearson_correlation(validation_true, validated),
        )
        value = record.validation_srcc + record.validation_plcc
        if value > best_value:
            best_epoch, best_value, best_weights = epoch, value, copy.deepcopy(regressor.state_dict())
        curve.append(record)
        on_epoch(record)
    if best_weights is not None:
        regressor.load_state_dict(best_weights)
    return best_epoch, tuple(curve)


def _calibrate(
    regressor: Regressor, videos: Mapping[str, LoadedVideo], scores: Mapping[str, float], video_ids: Sequence[str]
) -> None:
    """Set the least-squares line from raw scores to the label scale; a level one where the raw scores are constant."""
    raw = np.array(list(predict_scores(regressor, videos, video_ids).values()))
    true = np.array([scores[video_id] for video_id in video_ids])
    centred = raw - raw.mean()
    spread = float(np.sum(centred**2))
    slope = float(np.sum(centred * (true - true.mean()))) / spread if spread > 0.0 else 0.0
    regressor.set_calibration(slope, float(true.mean() - slope * raw.mean()))


def _random_batches(video_ids: Sequence[str], size: int, generator: torch.Generator) -> Iterator[list[str]]:
    """Yield every video once, in random order."""
    order = torch.randperm(len(video_ids), generator=generator)
    for batch in torch.split(order, _batch_sizes(len(video_ids), size)):
        yield [video_ids[index] for index in batch.tolist()]


def _batch_sizes(videos: int, size: int) -> list[int]:
    """Divide the videos into batches; a lone last video joins the batch before, since one has none to compare with."""
    full, rest = divmod(videos, size)
    sizes = [size] * full + ([rest] if rest else [])
    if rest == 1 and full:
        sizes[-2:] = [size + 1]
    return sizes


def _random_index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _rate_at(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then half a cosine down to 0."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))


def _parameter_groups(regressor: Regressor, weight_decay: float) -> list[dict[str, Any]]:
    """Decay the weight matrices alone: neither biases and norms nor, as in Mamba's own recipe, A_log."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in regressor.named_parameters():
        is_free = parameter.ndim < 2 or name.endswith(("A_log", "A_b_log"))
        (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _check_samples(samples: Sequence[VideoSample]) -> None:
    repeated = [video_id for video_id, count in Counter(sample.video_id for sample in samples).items() if count > 1]
    if repeated:
        raise TrainingDataError(f"{len(repeated)} video ids have several labels, first '{repeated[0]}'.", "Keep one.")
    unlabelled = [sample.video_id for sample in samples if not math.isfinite(sample.score)]
    if unlabelled:
        raise TrainingDataError(
            f"{len(unlabelled)} of {len(samples)} videos have no finite score, first '{unlabelled[0]}'.",
            "Leave them out or correct the label file.",
        )
    if samples and len({sample.score for sample in samples}) == 1:
        raise TrainingDataError(
            f"All {len(samples)} videos have the score {samples[0].score}; there is nothing to learn.",
            "Check the label file's score column.",
        )


def _check_split(split: Split, scores: Mapping[str, float]) -> None:
    unlabelled = [video_id for video_id in (*split.train, *split.validation, *split.test) if video_id not in scores]
    if unlabelled:
        raise TrainingDataError(f"{len(unlabelled)} videos of the split have no label, first '{unlabelled[0]}'.")
    if len(split.train) < 2:
        raise TrainingDataError(
            f"Split {split.index} has {len(split.train)} video(s) to train on; the losses compare at least two.",
            "Give more videos or a smaller validation_share or test_share.",
        )
