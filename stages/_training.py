"""Stage two's protocol: a regressor per split, its epoch chosen on the validation part, the test part touched once."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from diffvqa.stages._calibration import Calibration
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._fit_state import EpochRecord, FitState
from diffvqa.stages._fits_at_once import fit_at_once
from diffvqa.stages._fitting import FittedRegressor, Hooks, TrainingPart, fit_regressor
from diffvqa.stages._metrics import Metrics, correlation_metrics, median_metrics
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._prediction import CalibratedRegressor, predict_raw
from diffvqa.stages._regressor import Regressor
from diffvqa.stages._splits import Split
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import FeatureSource, VideoSample
from diffvqa.stages._video_store import VideoStore

logger = logging.getLogger(__name__)

PRETRAINING = "pretraining"
_MEMORY_LIMIT = 8 * 2**30
# Of a training video, for the line to the label scale: as many as it was shown with at a time. Only two figures are
# fitted, and to look at all crops of each video could take as long as the training.
_LEARNED_CROPS = 1


class FitStates(Protocol):
    """Where the states of fits are kept: a :class:`~diffvqa.stages._training_journal.TrainingJournal`, or memory."""

    def state_of(self, fit: str, /) -> FitState | None:
        """Return the latest state of the fit of that name; None when it has not begun."""
        ...

    def keep(self, fit: str, state: FitState, /) -> None:
        """Keep a fit's latest state."""
        ...


def split_fit(split: Split) -> str:
    """Return the name of the fit to a split."""
    return f"split-{split.index}"


@dataclass(frozen=True)
class TrainingSetup:
    """Where a training computes and whom it tells; nothing in it changes a result by more than rounding.

    Attributes:
        device: Where to compute.
        memory_limit: Bytes of features that may be kept in memory.
        threads: Of the CPU, for all splits together; as many as torch computes with when 0.
        journal: Keeps each epoch's state, and gives back that of an interrupted training.
        on_epoch: Called after each epoch with the fit's name, such as ``split-0``, and the epoch's record.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_limit: int = _MEMORY_LIMIT
    threads: int = 0
    journal: FitStates | None = None
    on_epoch: Callable[[str, EpochRecord], None] = lambda _fit, _record: None

    def state_of(self, fit: str) -> FitState | None:
        """Return where an interrupted fit goes on, if it does."""
        return self.journal.state_of(fit) if self.journal else None

    def hooks(self, fit: str, is_wanted: Callable[[], bool] = lambda: True) -> Hooks:
        """Return what the fit of that name is to call."""
        keep = functools.partial(self.journal.keep, fit) if self.journal else Hooks().keep
        return Hooks(functools.partial(self.on_epoch, fit), keep, is_wanted)


@dataclass(frozen=True)
class TrainedSplit:
    """A regressor trained on one split, and how it does on the parts it did not learn from.

    Attributes:
        split: Which videos it was trained, validated and tested on.
        fitted: The regressor, its best epoch and its curve.
        calibrations: By data set, the line from raw scores to its label scale, fitted on training and validation part,
            with one crop of each training video.
        validation: By data set.
        test: By data set, on the test part, which was used for nothing else.
        test_true: The scores of the test part by video id.
        test_predicted: The predictions for the test part by video id, on the label scale of the video's data set.
        test_datasets: The data set of each video of the test part, by video id.
    """

    split: Split
    fitted: FittedRegressor
    calibrations: Mapping[str, Calibration]
    validation: Mapping[str, Metrics]
    test: Mapping[str, Metrics]
    test_true: Mapping[str, float]
    test_predicted: Mapping[str, float]
    test_datasets: Mapping[str, str]

    @property
    def regressor(self) -> Regressor:
        """With the best epoch's weights, in evaluation mode."""
        return self.fitted.regressor

    def calibrated(self, dataset: str | None = None) -> CalibratedRegressor:
        """Return the regressor on the label scale of a data set, the first when None."""
        return CalibratedRegressor(self.regressor, self.calibrations[dataset or next(iter(self.calibrations))])


@dataclass(frozen=True)
class CrossValidation:
    """The regressors of all splits."""

    splits: tuple[TrainedSplit, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets that were trained on."""
        return tuple(self.splits[0].calibrations)

    def median(self, dataset: str | None = None) -> Metrics:
        """Return the median over the splits of each test metric of a data set, the first when None."""
        name = self.datasets[0] if dataset is None else dataset
        return median_metrics([trained.test[name] for trained in self.splits])


def train_all(
    features: FeatureSource,
    samples: Sequence[VideoSample],
    splits: Sequence[Split],
    recipe: TrainRecipe,
    setup: TrainingSetup | None = None,
    *,
    initial: Mapping[str, Tensor] | None = None,
    networks: Sequence[NetworkMaps] = (),
) -> CrossValidation:
    """Train and test one regressor on each split.

    The same recipe, splits and features on as many threads of the same machine give the same numbers.

    Args:
        features: Of every sample.
        samples: The videos and their labels; those outside the splits are not read.
        splits: Which videos to train, validate and test on; each is used on its own.
        recipe: Of the regressor and its training.
        setup: Where to compute, and whom to tell.
        initial: Weights to fine-tune, as :func:`pretrain_regressor` returns them.
        networks: What of ``multiscale`` each network of the backbone has; one has all when empty.

    Raises:
        TrainingDataError: Missing, constant or repeated labels, a split with too few videos or one video in two parts,
            or unusable features.
    """
    setup = setup or TrainingSetup()
    by_id = checked_samples(samples)
    for split in splits:
        _check_split(split, by_id)
    used = dict.fromkeys(video_id for split in splits for _part, ids in split.parts() for video_id in ids)
    videos = VideoStore(features, tuple(used), memory_limit=setup.memory_limit, networks=networks)

    def train(split: Split, is_wanted: Callable[[], bool]) -> TrainedSplit:
        part = training_part(videos, by_id, split)
        name = split_fit(split)
        fitted = fit_regressor(
            part, recipe, setup.device, setup.hooks(name, is_wanted), initial=initial, state=setup.state_of(name)
        )
        logger.info("%s: epoch %d of %d was the best", split.name or name, fitted.best_epoch + 1, recipe.epochs)
        return _tested(fitted, part, videos, [by_id[video_id] for video_id in split.test], split)

    return CrossValidation(tuple(fit_at_once(train, splits, setup.device, setup.threads)))


def pretrain_regressor(
    features: FeatureSource,
    samples: Sequence[VideoSample],
    split: Split,
    recipe: TrainRecipe,
    setup: TrainingSetup | None = None,
    *,
    networks: Sequence[NetworkMaps] = (),
) -> dict[str, Tensor]:
    """Train one regressor for others to start from, and return its weights and input statistics.

    Args:
        features: Of every sample.
        samples: The videos and their labels.
        split: Its training and validation parts are used; its test part is not looked at.
        recipe: Of the regressor and its training, for ``pretrain_epochs``.
        setup: Where to compute, and whom to tell.
        networks: As in :func:`train_all`.

    Raises:
        TrainingDataError: As in :func:`train_all`.
    """
    setup = setup or TrainingSetup()
    by_id = checked_samples(samples)
    _check_split(split, by_id)
    learned = (*split.train, *split.validation)
    videos = VideoStore(features, learned, memory_limit=setup.memory_limit, networks=networks)
    recipe = recipe.model_copy(update={"epochs": recipe.pretrain_epochs})
    fitted = fit_regressor(
        training_part(videos, by_id, split),
        recipe,
        setup.device,
        setup.hooks(PRETRAINING),
        state=setup.state_of(PRETRAINING),
    )
    logger.info("pretraining: epoch %d of %d was the best", fitted.best_epoch + 1, recipe.epochs)
    return {name: tensor.detach().cpu() for name, tensor in fitted.regressor.state_dict().items()}


def training_part(videos: VideoStore, by_id: Mapping[str, VideoSample], split: Split) -> TrainingPart:
    """Return what a fit may see of the videos: the training and the validation part of a split, nothing else."""
    return TrainingPart(
        videos=videos.only((*split.train, *split.validation)),
        train=tuple(by_id[video_id] for video_id in split.train),
        validation=tuple(by_id[video_id] for video_id in split.validation),
        index=split.index,
    )


def _tested(
    fitted: FittedRegressor, part: TrainingPart, videos: VideoStore, tested: Sequence[VideoSample], split: Split
) -> TrainedSplit:
    learned = (*part.train, *part.validation)
    raw = predict_raw(
        fitted.regressor,
        part.videos,
        [sample.video_id for sample in part.train],
        crops=_LEARNED_CROPS,
        kernel_quality=fitted.kernel_quality,
    )
    raw |= predict_raw(fitted.regressor, part.videos, [sample.video_id for sample in part.validation])
    calibrations = {
        dataset: Calibration.fitted([raw[each.video_id] for each in those], [each.score for each in those])
        for dataset, those in _by_dataset(learned).items()
    }
    raw |= predict_raw(fitted.regressor, videos, [sample.video_id for sample in tested])
    predicted = {
        sample.video_id: calibrations[sample.dataset](raw[sample.video_id]) for sample in (*part.validation, *tested)
    }
    return TrainedSplit(
        split=split,
        fitted=fitted,
        calibrations=calibrations,
        validation=_metrics(part.validation, predicted),
        test=_metrics(tested, predicted),
        test_true={sample.video_id: sample.score for sample in tested},
        test_predicted={sample.video_id: predicted[sample.video_id] for sample in tested},
        test_datasets={sample.video_id: sample.dataset for sample in tested},
    )


def _metrics(samples: Sequence[VideoSample], predicted: Mapping[str, float]) -> dict[str, Metrics]:
    return {
        dataset: correlation_metrics([each.score for each in those], [predicted[each.video_id] for each in those])
        for dataset, those in _by_dataset(samples).items()
    }


def _by_dataset(samples: Sequence[VideoSample]) -> dict[str, list[VideoSample]]:
    datasets: dict[str, list[VideoSample]] = {}
    for sample in samples:
        datasets.setdefault(sample.dataset, []).append(sample)
    return datasets


def checked_samples(samples: Sequence[VideoSample]) -> dict[str, VideoSample]:
    """Return the samples by id, if they can be learned from.

    Raises:
        TrainingDataError: An id is there twice, a score is not finite, or all scores of a data set are equal.
    """
    repeated = [video_id for video_id, count in Counter(sample.video_id for sample in samples).items() if count > 1]
    if repeated:
        raise TrainingDataError(f"{len(repeated)} video ids have several labels, first '{repeated[0]}'.", "Keep one.")
    unlabelled = [sample.video_id for sample in samples if not math.isfinite(sample.score)]
    if unlabelled:
        raise TrainingDataError(
            f"{len(unlabelled)} of {len(samples)} videos have no finite score, first '{unlabelled[0]}'.",
            "Leave them out or correct the label file.",
        )
    for dataset, those in _by_dataset(samples).items():
        if len({sample.score for sample in those}) == 1:
            of_dataset = f" of '{dataset}'" if dataset else ""
            raise TrainingDataError(
                f"All {len(those)} videos{of_dataset} have the score {those[0].score}; there is nothing to learn.",
                "Check the label file's score column.",
            )
    return {sample.video_id: sample for sample in samples}


def _check_split(split: Split, by_id: Mapping[str, VideoSample]) -> None:
    every = [video_id for _part, ids in split.parts() for video_id in ids]
    name = split.name or split.index
    unlabelled = [video_id for video_id in every if video_id not in by_id]
    if unlabelled:
        raise TrainingDataError(
            f"{len(unlabelled)} videos of split '{name}' have no label, first '{unlabelled[0]}'.", "Label them."
        )
    repeated = [video_id for video_id, count in Counter(every).items() if count > 1]
    if repeated:
        raise TrainingDataError(
            f"Split '{name}' has {len(repeated)} video(s) in two of its parts, first '{repeated[0]}'.",
            "A video is trained on, validated on or tested on: correct the splits.",
        )
    if len(split.train) < 2:
        raise TrainingDataError(
            f"Split '{name}' has {len(split.train)} video(s) to train on; the losses compare at least two.",
            "Give more videos or a smaller validation_share or test_share.",
        )
