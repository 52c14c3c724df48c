from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffvqa.stages.errors import RegressorFolderError, TrainingDataError
from diffvqa.stages.metrics import correlation_metrics
from diffvqa.stages.splits import Split, make_splits
from diffvqa.stages.train_recipe import TrainRecipe
from diffvqa.stages.training import (
    EpochRecord,
    TrainedSplit,
    VideoSample,
    predict,
    train_all,
    train_regressor,
)

CPU = torch.device("cpu")
RECIPE = TrainRecipe(
    splits=2,
    epochs=3,
    batch_size=4,
    learning_rate=5e-3,
    width=4,
    tcab_patch=8,
    tcab_width=4,
    tcab_state=2,
    head_width=8,
    dropout=0.1,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_features(seed: int, quality: float, frames: int = 3, crops: int = 2) -> dict[str, NDArray[Any]]:
    """Random features in which the quality moves one channel of the latents and one of the multiscale maps."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for view, leading in (("resize", (frames,)), ("crop", (frames, crops))):
        latent, multiscale = rng.normal(size=(*leading, 3, 8, 8)), rng.normal(size=(*leading, 5, 4, 4))
        latent[..., 0, :, :] += 2 * quality
        multiscale[..., 2, :, :] -= 2 * quality
        arrays[f"{view}/latent"] = latent.astype(np.float16)
        arrays[f"{view}/multiscale"] = multiscale.astype(np.float16)
        arrays[f"{view}/frames"] = rng.integers(0, 256, (*leading, 8, 8, 3), np.uint8)
    return arrays


def make_data(videos: int = 15, *, contents: int = 15) -> tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]]:
    qualities = np.random.default_rng(0).permutation(np.linspace(-1.0, 1.0, videos))
    features = {f"v{n:02d}": make_features(n, float(q), frames=2 + n % 3) for n, q in enumerate(qualities)}
    samples = [
        VideoSample(f"v{n:02d}", 50.0 + 20.0 * float(q), f"content {n % contents}") for n, q in enumerate(qualities)
    ]
    return features, samples


def weights_of(trained: TrainedSplit) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in trained.regressor.state_dict().items()}


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]]:
    return make_data()


@pytest.fixture(scope="module")
def split(data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]]) -> Split:
    return make_splits({sample.video_id: sample.group for sample in data[1]}, RECIPE)[0]


def test_a_planted_score_is_learned() -> None:
    features, samples = make_data(30, contents=30)
    recipe = RECIPE.model_copy(update={"epochs": 12, "learning_rate": 1e-2})
    trained = train_all(features, samples, recipe, CPU)
    assert trained.median().srcc > 0.8
    assert trained.median().plcc > 0.8
    true = [sample.score for sample in samples]
    scores = [predict([s.regressor for s in trained.splits], features[sample.video_id]) for sample in samples]
    error = np.array([score.score for score in scores]) - true
    assert np.sqrt(np.mean(error**2)) < 0.6 * np.std(true)  # calibrated to the labels' own scale


def test_the_same_seed_gives_identical_numbers_and_another_does_not(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    features, samples = data
    torch.manual_seed(1)
    first = train_regressor(features, samples, split, RECIPE, CPU)
    torch.manual_seed(2)
    shuffled = dict(reversed(features.items()))
    second = train_regressor(shuffled, list(reversed(samples)), split, RECIPE, CPU)
    assert weights_of(first) == weights_of(second)
    assert first.curve == second.curve
    assert first.test_predicted == second.test_predicted
    other = train_regressor(features, samples, split, RECIPE.model_copy(update={"seed": 1}), CPU)
    assert weights_of(first) != weights_of(other)


def test_training_leaves_the_global_random_state_alone(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_regressor(*data, split, RECIPE, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_of_the_test_part_is_learned_from(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    features, samples = data
    before = train_regressor(features, samples, split, RECIPE, CPU)
    tested = frozenset(split.test)
    relabelled = [replace(s, score=-s.score) if s.video_id in tested else s for s in samples]
    refeatured = {v: make_features(99, 3.0) if v in tested else arrays for v, arrays in features.items()}
    after = train_regressor(refeatured, relabelled, split, RECIPE, CPU)
    assert weights_of(after) == weights_of(before)
    assert (after.best_epoch, after.curve) == (before.best_epoch, before.curve)
    assert repr(after.validation) == repr(before.validation)
    assert after.test_predicted != before.test_predicted
    assert after.test_true != before.test_true


def test_the_best_epoch_is_the_validation_parts_and_its_weights_are_kept(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    trained = train_regressor(*data, split, RECIPE.model_copy(update={"epochs": 6}), CPU)
    values = [record.validation_srcc + record.validation_plcc for record in trained.curve]
    assert trained.best_epoch == int(np.argmax(values))
    best = trained.curve[trained.best_epoch]
    slope = float(trained.regressor.slope)
    assert trained.validation.srcc == pytest.approx(math.copysign(1.0, slope) * best.validation_srcc, abs=1e-6)


def test_calibration_is_the_least_squares_line_on_train_and_validation(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    features, samples = data
    trained = train_regressor(features, samples, split, RECIPE, CPU)
    scores = {sample.video_id: sample.score for sample in samples}
    used = (*split.train, *split.validation)
    predicted = np.array([predict([trained.regressor], features[video_id]).score for video_id in used])
    residual = np.array([scores[video_id] for video_id in used]) - predicted
    assert residual.mean() == pytest.approx(0.0, abs=1e-3)
    assert np.dot(residual, predicted - predicted.mean()) == pytest.approx(0.0, abs=0.05)


def test_results_are_keyed_by_video_id(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    features, samples = data
    trained = train_regressor(features, samples, split, RECIPE, CPU)
    scores = {sample.video_id: sample.score for sample in samples}
    assert trained.test_true == {video_id: scores[video_id] for video_id in split.test}
    assert list(trained.test_predicted) == list(split.test)
    for video_id, predicted in trained.test_predicted.items():
        assert predict([trained.regressor], features[video_id]).score == pytest.approx(predicted, abs=1e-3)
    expected = correlation_metrics(list(trained.test_true.values()), list(trained.test_predicted.values()))
    assert repr(trained.test) == repr(expected)  # NaN, as the fit of so few videos is, equals nothing
    assert not trained.regressor.training


def test_each_video_is_read_once_for_all_splits_and_progress_is_told(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]],
) -> None:
    features, samples = data
    read: list[str] = []

    class Recorded:
        def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
            read.append(video_id)
            return features[video_id]

    told: list[tuple[int, int]] = []

    def on_epoch(index: int, record: EpochRecord) -> None:
        told.append((index, record.epoch))

    trained = train_all(Recorded(), samples, RECIPE, CPU, on_epoch)
    assert sorted(read) == sorted(features)
    assert told == [(index, epoch) for index in range(2) for epoch in range(RECIPE.epochs)]
    assert trained.median().srcc == pytest.approx(np.median([s.test.srcc for s in trained.splits]))


def test_a_score_is_the_mean_over_regressors_and_says_how_they_differ(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]],
) -> None:
    features, samples = data
    regressors = [trained.regressor for trained in train_all(features, samples, RECIPE, CPU).splits]
    each = [predict([regressor], features["v02"]) for regressor in regressors]
    both = predict(regressors, features["v02"])
    assert both.score == pytest.approx(np.mean([one.score for one in each]))
    assert both.score_std == pytest.approx(np.std([one.score for one in each]))
    assert each[0].score_std == 0.0
    assert both.frame_quality.shape == both.frame_weight.shape == (4,)
    assert both.frame_weight.sum() == pytest.approx(1.0)
    wide = {name: np.repeat(array, 2, axis=-3) for name, array in features["v02"].items()}
    with pytest.raises(RegressorFolderError, match="shapes"):
        predict(regressors, wide)
    with pytest.raises(ValueError, match="At least one"):
        predict([], features["v02"])


def test_a_batch_size_that_leaves_one_video_over_still_trains(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], split: Split
) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": len(split.train) - 1, "epochs": 1})
    trained = train_regressor(*data, split, recipe, CPU)
    assert trained.curve[0].train_loss > 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: [replace(s, group=f"g{n % 2}") for n, s in enumerate(samples)], "2 content group"),
        (lambda samples: [replace(samples[0], score=math.nan), *samples[1:]], "1 of 15 videos have no finite score"),
        (lambda samples: [replace(s, score=3.0) for s in samples], "All 15 videos have the score 3.0"),
        (lambda samples: [*samples, samples[0]], "several labels, first 'v00'"),
        (lambda samples: [replace(s, group=f"g{n}") for n, s in enumerate(samples[:3])], "1 video.s. to train on"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]], change: Any, message: str
) -> None:
    features, samples = data
    with pytest.raises(TrainingDataError, match=message) as error:
        train_all(features, change(samples), RECIPE, CPU)
    assert error.value.hint
    assert "\n" not in str(error.value)


def spoil(arrays: Mapping[str, NDArray[Any]], name: str, spoiled: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    kept = {key: array for key, array in arrays.items() if key != name}
    return kept if spoiled is None else {**kept, name: spoiled}


@pytest.mark.parametrize(
    ("name", "spoiled", "message"),
    [
        ("crop/latent", None, "'v01' lack crop/latent"),
        ("resize/latent", np.full((3, 3, 8, 8), np.nan, np.float16), "'resize/latent' of 'v01' holds values"),
        ("crop/frames", np.zeros((1, 2, 8, 8, 3), np.uint8), "'crop/frames' of 'v01' has the shape"),
        ("crop/multiscale", np.zeros((3, 2, 6, 4, 4), np.float16), "'v01' differ from the others: crop_shape"),
    ],
)
def test_unusable_features_are_refused_by_name(
    data: tuple[dict[str, dict[str, NDArray[Any]]], list[VideoSample]],
    name: str,
    spoiled: NDArray[Any] | None,
    message: str,
) -> None:
    features, samples = data
    broken = {**features, "v01": spoil(features["v01"], name, spoiled)}
    with pytest.raises(TrainingDataError, match=message) as error:
        train_all(broken, samples, RECIPE, CPU)
    assert error.value.hint
