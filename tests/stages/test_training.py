from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stage_two_material import RECIPE, Material, make_features, make_material, make_ordered

from diffvqa.stages._errors import RegressorFolderError, TrainingDataError
from diffvqa.stages._fit_state import EpochRecord
from diffvqa.stages._metrics import correlation_metrics, spearman_correlation
from diffvqa.stages._prediction import predict, predict_raw
from diffvqa.stages._splits import Split
from diffvqa.stages._train_recipe import TrainRecipe, ablations
from diffvqa.stages._training import (
    CrossValidation,
    TrainedSplit,
    TrainingSetup,
    pretrain_regressor,
    train_all,
    training_part,
)
from diffvqa.stages._training_data import VideoSample
from diffvqa.stages._training_journal import TrainingJournal
from diffvqa.stages._video_store import VideoStore


@pytest.fixture(scope="module")
def data() -> Material:
    return make_material()


@pytest.fixture(scope="module")
def split(data: Material) -> Split:
    return data.splits()[0]


def train(
    data: Material, recipe: TrainRecipe = RECIPE, split: Split | None = None, setup: TrainingSetup | None = None
) -> CrossValidation:
    splits = data.splits(recipe) if split is None else (split,)
    return train_all(data.features, data.samples, splits, recipe, setup)


@pytest.fixture(scope="module")
def cross_validated(data: Material) -> CrossValidation:
    """What the recipe learns of both splits; no test changes it."""
    return train(data)


@pytest.fixture(scope="module")
def first_split(cross_validated: CrossValidation) -> TrainedSplit:
    return cross_validated.splits[0]


def weights_of(trained: TrainedSplit) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in trained.regressor.state_dict().items()}


LEARNING = RECIPE.model_copy(update={"epochs": 15, "learning_rate": 2e-2, "splits": 1})


def test_a_planted_score_is_learned() -> None:
    data = make_material(80)
    trained = train(data, LEARNING.model_copy(update={"epochs": 9}))
    assert trained.median().srcc > 0.9
    assert trained.median().plcc > 0.9
    regressors = [split.calibrated() for split in trained.splits]
    scores = [predict(regressors, data.features[sample.video_id]).score for sample in data.samples]
    true = [sample.score for sample in data.samples]
    error = np.array(scores) - true
    assert np.sqrt(np.mean(error**2)) < 0.5 * np.std(true)  # calibrated to the labels' own scale


def test_shuffled_labels_are_not_learned() -> None:
    data = make_material(120, frames=1)
    scores = np.random.default_rng(5).permutation([sample.score for sample in data.samples])
    shuffled = [replace(sample, score=float(score)) for sample, score in zip(data.samples, scores, strict=True)]
    recipe = RECIPE.model_copy(update={"epochs": 4, "splits": 5})
    trained = train(Material(data.features, shuffled), recipe)
    # Each video once: the mean over splits that share videos would be off by the luck of those they share.
    predicted = {video_id: score for split in trained.splits for video_id, score in split.test_predicted.items()}
    true = {sample.video_id: sample.score for sample in shuffled}
    assert abs(spearman_correlation([true[v] for v in predicted], list(predicted.values()))) < 0.2


@pytest.mark.parametrize("temporal", [True, False])
def test_the_order_of_the_frames_is_learned_by_tdm_and_tcab_alone(temporal: bool) -> None:
    data = make_ordered()
    recipe = LEARNING.model_copy(update={"tdm": temporal, "tcab": temporal, "splits": 1, "epochs": 12})
    (trained,) = train(data, recipe).splits
    # Half of the pairs are ties but for a trace of noise, hence PLCC.
    assert trained.test[""].plcc > 0.9 if temporal else abs(trained.test[""].plcc) < 0.5
    video = data.features["v00"]
    backwards = {name: array[::-1].copy() for name, array in video.items()}
    forth, back = (predict([trained.calibrated()], arrays).score for arrays in (video, backwards))
    # Without the two no training whatever could tell one from the other.
    assert (forth == pytest.approx(back, abs=1e-5)) is not temporal


@pytest.mark.parametrize("block", ["tdm", "tcab"])
def test_either_of_the_two_sees_the_order(block: str) -> None:
    others = {name: name == block for name in ("tdm", "tcab")}
    recipe = LEARNING.model_copy(update={**others, "splits": 1, "epochs": 12})
    assert train(make_ordered(40), recipe).splits[0].test[""].plcc > 0.9


def test_the_same_seed_gives_identical_numbers_and_another_does_not(
    data: Material, split: Split, first_split: TrainedSplit
) -> None:
    torch.manual_seed(2)
    shuffled = Material(dict(reversed(data.features.items())), list(reversed(data.samples)))
    second = train(shuffled, split=split).splits[0]
    assert weights_of(first_split) == weights_of(second)
    assert first_split.fitted.curve == second.fitted.curve
    assert first_split.test_predicted == second.test_predicted
    other = train(data, RECIPE.model_copy(update={"seed": 1}), split).splits[0]
    assert weights_of(first_split) != weights_of(other)


def test_training_leaves_the_global_random_state_alone(data: Material, split: Split) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(data, split=split)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_of_the_test_part_is_learned_from(data: Material, split: Split, first_split: TrainedSplit) -> None:
    tested = frozenset(split.test)
    relabelled = [replace(s, score=-s.score) if s.video_id in tested else s for s in data.samples]
    refeatured = {v: make_features(99, 3.0) if v in tested else arrays for v, arrays in data.features.items()}
    after = train(Material(refeatured, relabelled), split=split).splits[0]
    assert weights_of(after) == weights_of(first_split)
    assert (after.fitted.best_epoch, after.fitted.curve) == (first_split.fitted.best_epoch, first_split.fitted.curve)
    assert repr(after.validation) == repr(first_split.validation)
    assert after.calibrations == first_split.calibrations
    assert after.test_predicted != first_split.test_predicted
    assert after.test_true != first_split.test_true


def test_a_video_that_is_read_again_keeps_its_texture() -> None:
    data = make_material(2, frames=2)
    first, second = data.features
    one = VideoStore(data.features, (first,), memory_limit=0)[first]
    videos = VideoStore(data.features, (first, second), memory_limit=2 * one.size - 1)
    before, again = videos[first], videos.only([first])[first]
    assert before.resize.multiscale is not again.resize.multiscale  # read, as nothing fits
    assert before.resize.texture is again.resize.texture
    assert before.crop.texture is again.crop.texture
    assert before.crop.flat_texture is again.crop.flat_texture
    assert videos.summary(first) is videos.only([first]).summary(first)
    forgetful = VideoStore(data.features, (first, second), memory_limit=0)
    assert forgetful[first].crop.texture is not forgetful[first].crop.texture  # nor do they fit
    assert forgetful.summary(first) is not forgetful.summary(first)
    kept, unkept = (VideoStore(data.features, tuple(data.features), memory_limit=limit)[first] for limit in (2**30, 0))
    assert kept.crop.texture is not None
    assert unkept.crop.texture is not None
    assert torch.equal(kept.crop.texture, unkept.crop.texture)


def test_a_fit_cannot_reach_the_test_part_however_it_tries(data: Material, split: Split) -> None:
    videos = VideoStore(data.features, tuple(data.features), memory_limit=2**30)
    part = training_part(videos, {sample.video_id: sample for sample in data.samples}, split)
    seen = {sample.video_id for sample in (*part.train, *part.validation)}
    assert set(part.videos) == seen == {*split.train, *split.validation}
    for video_id in split.test:
        assert video_id not in part.videos
        with pytest.raises(KeyError):
            part.videos[video_id]
        with pytest.raises(KeyError):
            part.videos.only([video_id])


def test_a_split_with_a_video_in_two_parts_is_refused(data: Material, split: Split) -> None:
    leaking = replace(split, train=(*split.train, split.test[0]))
    with pytest.raises(TrainingDataError, match="in two of its parts"):
        train(data, split=leaking)


def test_the_best_epoch_is_the_validation_parts_and_its_weights_are_kept(data: Material, split: Split) -> None:
    trained = train(data, RECIPE.model_copy(update={"epochs": 6, "validation_crops": 2}), split).splits[0]
    assert trained.fitted.best_epoch == int(np.argmax([record.value for record in trained.fitted.curve]))
    best = trained.fitted.curve[trained.fitted.best_epoch]
    slope = trained.calibrations[""].slope
    assert trained.validation[""].srcc == pytest.approx(math.copysign(1.0, slope) * best.validation_srcc, abs=1e-6)


def test_calibration_is_the_least_squares_line_on_train_and_validation(
    data: Material, split: Split, first_split: TrainedSplit
) -> None:
    scores = {sample.video_id: sample.score for sample in data.samples}
    used = (*split.train, *split.validation)
    videos = VideoStore(data.features, used, memory_limit=2**30)
    fitted = first_split.fitted
    assert set(fitted.kernel_quality) == set(split.train)
    # Of the training part the first crop alone, and what the kernel part says when it has not learned from the video.
    raw = predict_raw(fitted.regressor, videos, split.train, crops=1, kernel_quality=fitted.kernel_quality)
    raw |= predict_raw(fitted.regressor, videos, split.validation)
    predicted = np.array([first_split.calibrations[""](raw[video_id]) for video_id in used])
    residual = np.array([scores[video_id] for video_id in used]) - predicted
    assert residual.mean() == pytest.approx(0.0, abs=1e-3)
    assert np.dot(residual, predicted - predicted.mean()) == pytest.approx(0.0, abs=0.05)


def test_results_are_keyed_by_video_id(data: Material, split: Split, first_split: TrainedSplit) -> None:
    scores = {sample.video_id: sample.score for sample in data.samples}
    assert first_split.test_true == {video_id: scores[video_id] for video_id in split.test}
    assert list(first_split.test_predicted) == list(split.test)
    for video_id, predicted in first_split.test_predicted.items():
        assert predict([first_split.calibrated()], data.features[video_id]).score == pytest.approx(predicted, abs=1e-3)
    expected = correlation_metrics(list(first_split.test_true.values()), list(first_split.test_predicted.values()))
    assert repr(first_split.test[""]) == repr(expected)  # NaN, as the fit of so few videos is, equals nothing
    assert not first_split.regressor.training


@pytest.mark.parametrize("memory_limit", [2**30, 1000])
def test_each_video_is_read_once_where_it_fits_and_results_do_not_depend_on_it(
    data: Material, cross_validated: CrossValidation, memory_limit: int
) -> None:
    read: list[str] = []

    class Recorded:
        def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
            read.append(video_id)
            return data.features[video_id]

    told: list[tuple[str, int]] = []

    def on_epoch(fit: str, record: EpochRecord) -> None:
        told.append((fit, record.epoch))

    setup = TrainingSetup(memory_limit=memory_limit, on_epoch=on_epoch)
    trained = train_all(Recorded(), data.samples, data.splits(), RECIPE, setup)
    assert (len(read) <= len(data.features) + 1) == (memory_limit > 1000)
    assert told == [(f"split-{index}", epoch) for index in range(2) for epoch in range(RECIPE.epochs)]
    assert trained.median().srcc == pytest.approx(np.median([s.test[""].srcc for s in trained.splits]))
    assert [weights_of(one) for one in trained.splits] == [weights_of(one) for one in cross_validated.splits]


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize(
    ("precision", "ema", "stops"), [("fp32", 0.9, (0, 2, 4)), ("fp32", 0.0, (0, 2, 4)), ("bf16", 0.9, (1,))]
)
def test_an_interrupted_training_goes_on_exactly(
    data: Material, tmp_path: Path, precision: str, ema: float, stops: tuple[int, ...]
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision, "ema": ema, "dropout": 0.3})
    expected = train(data, recipe)
    told: list[tuple[str, int]] = []
    counter = itertools.count()

    def on_epoch(fit: str, record: EpochRecord) -> None:
        told.append((fit, record.epoch))
        if next(counter) in stops:
            raise InterruptedTrainingError

    for _ in stops:
        with pytest.raises(InterruptedTrainingError):
            train(data, recipe, setup=TrainingSetup(journal=TrainingJournal(tmp_path, "x"), on_epoch=on_epoch))
    torch.manual_seed(99)
    journal = TrainingJournal(tmp_path, "x")
    assert journal.resumed
    found = train(data, recipe, setup=TrainingSetup(journal=journal, on_epoch=on_epoch))
    assert told == [(f"split-{index}", epoch) for index in range(2) for epoch in range(recipe.epochs)]
    for one, other in zip(found.splits, expected.splits, strict=True):
        assert weights_of(one) == weights_of(other)
        assert one.fitted.curve == other.fitted.curve
        assert one.test_predicted == other.test_predicted
    journal.clear()
    assert not tmp_path.exists()


def test_a_journal_of_another_training_or_a_damaged_one_is_not_gone_on_from(
    data: Material, cross_validated: CrossValidation, tmp_path: Path
) -> None:
    expected = [weights_of(split) for split in cross_validated.splits]
    train(data, RECIPE.model_copy(update={"seed": 9}), setup=TrainingSetup(journal=TrainingJournal(tmp_path, "other")))
    journal = TrainingJournal(tmp_path, "this")
    assert not journal.resumed
    assert journal.state_of("split-0") is None
    found = train(data, setup=TrainingSetup(journal=journal))
    assert [weights_of(split) for split in found.splits] == expected
    (tmp_path / "split-1.safetensors").write_bytes(b"torn")
    found = train(data, setup=TrainingSetup(journal=TrainingJournal(tmp_path, "this")))
    assert [weights_of(split) for split in found.splits] == expected


def joined(parts: Sequence[Split]) -> Split:
    train, validation, test = (
        tuple(video_id for part in parts for video_id in getattr(part, name))
        for name in ("train", "validation", "test")
    )
    return Split(train, validation, test)


def test_several_data_sets_are_each_on_their_own_scale() -> None:
    first = make_material(15, dataset="first")
    second = make_material(15, dataset="second", scale=-0.7, prefix="w")  # a DMOS: reversed, and far smaller
    data = Material(first.features | second.features, first.samples + second.samples)
    parts = [each.splits(LEARNING)[0] for each in (first, second)]
    split = joined(parts)
    trained = train(data, LEARNING.model_copy(update={"learning_rate": 5e-3, "epochs": 4}), split).splits[0]
    assert trained.calibrations.keys() == {"first", "second"}
    # What is good on one scale is bad on the other: no regressor can satisfy both, but both lines can.
    assert trained.calibrations["first"].slope * trained.calibrations["second"].slope != 0
    assert set(trained.test_datasets.values()) == {"first", "second"}
    for name in ("first", "second"):
        spread = [score for v, score in trained.test_predicted.items() if trained.test_datasets[v] == name]
        assert abs(np.mean(spread) - 50.0) < 15.0


def test_data_sets_of_different_scales_help_each_other() -> None:
    first = make_material(60, dataset="first")
    second = make_material(60, dataset="second", scale=0.7, prefix="w")
    data = Material(first.features | second.features, first.samples + second.samples)
    parts = [each.splits(LEARNING)[0] for each in (first, second)]
    split = joined(parts)
    trained = train(data, LEARNING.model_copy(update={"epochs": 10}), split)
    assert trained.datasets == ("first", "second")
    for name in trained.datasets:
        assert trained.median(name).srcc > 0.9
    assert trained.splits[0].calibrations["first"].slope > 10 * trained.splits[0].calibrations["second"].slope > 0


def test_fine_tuning_starts_where_pretraining_ended() -> None:
    before, data = make_material(80, prefix="p"), make_material(60)
    recipe = RECIPE.model_copy(update={"epochs": 1, "splits": 1, "pretrain_epochs": 10, "learning_rate": 1e-2})
    split = before.splits(recipe)[0]
    whole = replace(split, train=(*split.train, *split.test), test=())
    initial = pretrain_regressor(before.features, before.samples, whole, recipe)
    tuned = train_all(data.features, data.samples, data.splits(recipe), recipe, initial=initial).splits[0]
    alone = train(data, recipe).splits[0]
    assert tuned.test[""].srcc > max(0.8, alone.test[""].srcc)
    for kept in ("resize_branch.dff.standardise_latent.mean", "kernel.kernels.0.landmarks"):
        assert torch.equal(tuned.regressor.state_dict()[kept], initial[kept])
    assert not torch.equal(tuned.regressor.state_dict()["kernel.weights"], initial["kernel.weights"])


@pytest.mark.parametrize("variant", ablations(RECIPE))
def test_every_ablation_trains(data: Material, split: Split, variant: str) -> None:
    recipe = ablations(RECIPE)[variant].model_copy(update={"epochs": 1})
    trained = train(data, recipe, split).splits[0]
    assert np.isfinite(list(trained.test_predicted.values())).all()


def test_a_score_is_the_mean_over_regressors_and_says_how_they_differ(
    data: Material, cross_validated: CrossValidation
) -> None:
    regressors = [trained.calibrated() for trained in cross_validated.splits]
    each = [predict([regressor], data.features["v02"]) for regressor in regressors]
    both = predict(regressors, data.features["v02"])
    assert both.score == pytest.approx(np.mean([one.score for one in each]))
    assert both.score_std == pytest.approx(np.std([one.score for one in each]))
    assert each[0].score_std == 0.0
    assert both.frame_quality.shape == both.frame_weight.shape == (4,)
    assert both.frame_weight.sum() == pytest.approx(1.0)
    wide = {name: np.repeat(array, 2, axis=-3) for name, array in data.features["v02"].items()}
    with pytest.raises(RegressorFolderError, match="shapes"):
        predict(regressors, wide)
    with pytest.raises(ValueError, match="At least one"):
        predict([], data.features["v02"])


def test_a_batch_size_that_leaves_one_video_over_still_trains(data: Material, split: Split) -> None:
    recipe = RECIPE.model_copy(update={"batch_size": len(split.train) - 1, "epochs": 1})
    assert train(data, recipe, split).splits[0].fitted.curve[0].train_loss > 0.0


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 100.0), (-4.7, -1.2), (1e-30, 2e-30)])
def test_any_scale_of_scores_gives_the_same_ranking(
    data: Material, split: Split, first_split: TrainedSplit, low: float, high: float
) -> None:
    """A DMOS is a falling scale, which is learned as it is."""
    lowest, highest = (pick(sample.score for sample in data.samples) for pick in (min, max))
    scaled = [
        replace(sample, score=low + (high - low) * (sample.score - lowest) / (highest - lowest))
        for sample in data.samples
    ]
    found = train(Material(data.features, scaled), split=split).splits[0]
    assert found.test[""].srcc == pytest.approx(first_split.test[""].srcc)
    assert np.isfinite(list(found.test_predicted.values())).all()


def test_videos_of_one_frame_train_and_test() -> None:
    trained = train(make_material(40, frames=1), LEARNING.model_copy(update={"epochs": 8}))
    assert trained.median().srcc > 0.8


def regrouped(samples: list[VideoSample]) -> list[VideoSample]:
    return [replace(sample, group=f"g{number % 2}") for number, sample in enumerate(samples)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (regrouped, "2 content group"),
        (lambda samples: samples[:2], "2 content group"),
        (lambda samples: [replace(samples[0], score=math.nan), *samples[1:]], "1 of 15 videos have no finite score"),
        (lambda samples: [replace(s, score=3.0) for s in samples], "All 15 videos have the score 3.0"),
        (lambda samples: [*samples, samples[0]], "several labels, first 'v00'"),
        (lambda samples: samples[:3], "1 video.s. to train on"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(
    data: Material, change: Callable[[list[VideoSample]], list[VideoSample]], message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message) as error:
        train(Material(data.features, change(data.samples)))
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
    data: Material, name: str, spoiled: NDArray[Any] | None, message: str
) -> None:
    broken = {**data.features, "v01": spoil(data.features["v01"], name, spoiled)}
    with pytest.raises(TrainingDataError, match=message) as error:
        train(Material(broken, data.samples))
    assert error.value.hint


def test_videos_with_different_numbers_of_crops_go_together(data: Material) -> None:
    features = {**data.features, "v01": make_features(1, 0.0, frames=3, crops=5)}
    trained = train(Material(features, data.samples))
    assert np.isfinite(trained.median().srcc)


def test_the_epoch_is_chosen_on_as_many_crops_as_the_recipe_says(data: Material, split: Split) -> None:
    """Other values in the crops that are not looked at change no validation figure, but the test predictions."""
    rng = np.random.default_rng(0)
    changed = {video_id: dict(arrays) for video_id, arrays in data.features.items()}
    for video_id in (*split.validation, *split.test):
        latent = changed[video_id]["crop/latent"].copy()
        latent[:, 1] = rng.normal(size=latent[:, 1].shape)
        changed[video_id]["crop/latent"] = latent
    for crops, same in ((1, True), (2, False)):
        recipe = RECIPE.model_copy(update={"epochs": 2, "validation_crops": crops})
        before, after = (
            train(Material(features, data.samples), recipe, split).splits[0] for features in (data.features, changed)
        )
        assert (before.fitted.curve == after.fitted.curve) is same
        assert before.test_predicted != after.test_predicted
