"""Fitting one regressor to a training part, and choosing its epoch on a validation part; it is given no other video."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffvqa.stages._accelerators import fresh_accelerator
from diffvqa.stages._fit_state import EpochRecord, FitState, optimizer_tensors, prefixed, restore_optimizer
from diffvqa.stages._kernel_ridge_fit import fit_kernel_ridge
from diffvqa.stages._losses import quality_loss
from diffvqa.stages._metrics import pearson_correlation, spearman_correlation
from diffvqa.stages._prediction import predict_raw
from diffvqa.stages._prefetching import prefetched
from diffvqa.stages._regressor import Prediction, Regressor
from diffvqa.stages._seeding import derive_seed
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import VideoBatch, VideoSample, collate
from diffvqa.stages._video_store import VideoStore

# Random weights come from the process's one generator, and accelerate's settings are the process's.
_MAKING = threading.Lock()


@dataclass(frozen=True)
class TrainingPart:
    """All that a training may see: it holds neither features nor labels of the test part.

    Attributes:
        videos: Features of the training and the validation part.
        train: Samples to learn from.
        validation: Samples to choose the epoch on.
        index: Number of the split; seeds the training.
    """

    videos: VideoStore
    train: tuple[VideoSample, ...]
    validation: tuple[VideoSample, ...]
    index: int = 0


@dataclass(frozen=True)
class FittedRegressor:
    """A regressor with the weights of its best epoch.

    Attributes:
        regressor: In evaluation mode.
        best_epoch: The epoch of highest validation SRCC + PLCC, the earliest of equals; the last where none is defined.
        curve: One record per epoch.
        kernel_quality: What the kernel part says of the training videos with their content left out, by id, (F,)
            float32; empty without such a part.
        seconds: Spent on training steps by this process.
        waited: Seconds of them in which the next batch was not ready.
    """

    regressor: Regressor
    best_epoch: int
    curve: tuple[EpochRecord, ...]
    kernel_quality: Mapping[str, Tensor]
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class Hooks:
    """What is told and kept while a training goes on.

    Attributes:
        on_epoch: Called after each epoch with its record.
        keep: Called after each epoch with the state to go on from.
        is_wanted: Asked before each step; when the training is no longer wanted, it ends with an error.
    """

    on_epoch: Callable[[EpochRecord], None] = lambda _record: None
    keep: Callable[[FitState], None] = lambda _state: None
    is_wanted: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class _Batch:
    inputs: VideoBatch
    target: Tensor
    datasets: tuple[str, ...]


def fit_regressor(
    part: TrainingPart,
    recipe: TrainRecipe,
    device: torch.device,
    hooks: Hooks | None = None,
    *,
    initial: Mapping[str, Tensor] | None = None,
    state: FitState | None = None,
) -> FittedRegressor:
    """Train a regressor; the same part and recipe on as many threads of the same machine give the same numbers.

    Several may be trained at the same time in threads of one process. The state of the global random number generators
    is left as it was.

    Args:
        part: What to learn from.
        recipe: Of the regressor and its training.
        device: Where to compute.
        hooks: Told of each epoch.
        initial: State dict to fine-tune; random weights and the training part's input statistics when None.
        state: Where an interrupted training of the same part and recipe goes on.

    Raises:
        FitUnwantedError: The hooks say that it is no longer wanted.
    """
    with _MAKING, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(recipe.seed, "regressor", part.index))
        fit = _Fit(part, recipe, device, initial)
    fit.fit_kernel_part()
    return fit.run(hooks or Hooks(), state)


class FitUnwantedError(Exception):
    """A training was told to end; what it reached is kept."""


class _Fit:
    """One training on its way: the regressor, its optimiser, the averaged weights and the best so far."""

    def __init__(
        self, part: TrainingPart, recipe: TrainRecipe, device: torch.device, initial: Mapping[str, Tensor] | None
    ) -> None:
        self.part, self.recipe, self.device = part, recipe, device
        self.generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "batches", part.index))
        self.regressor = _build_regressor(part, recipe, initial)
        self.accelerator = fresh_accelerator(device, recipe.precision)
        steps = recipe.epochs * len(_batch_sizes(len(part.train), recipe.batch_size))
        peak = recipe.learning_rate * (recipe.fine_tune_rate if initial is not None else 1.0)
        groups = _parameter_groups(self.regressor, recipe.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=peak, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_at(step, steps, recipe.warm_up))
        self.model, self.optimizer = self.accelerator.prepare(self.regressor, optimizer)
        self.parameters = list(self.regressor.parameters())
        self.averaged = _AveragedWeights(self.regressor, recipe.ema) if recipe.ema else None
        self.dropout = torch.Generator(device).manual_seed(derive_seed(recipe.seed, "dropout", part.index))
        self.regressor.draw_dropout_from(self.dropout)
        self.scales = _score_scales(part.train)
        self.kernel_quality: dict[str, Tensor] = {}
        self.best_epoch: int | None = None
        self.best_value = -math.inf
        self.best_weights: dict[str, Tensor] = {}
        self.curve: tuple[EpochRecord, ...] = ()
        self.seconds = self.waited = 0.0

    def fit_kernel_part(self) -> None:
        """Fit what is fitted in closed form; a training that goes on does it again, with the same result."""
        kernel = self.regressor.kernel
        if kernel is None:
            return
        samples, networks = self.part.train, self.regressor.networks
        left_out = fit_kernel_ridge(
            kernel.cpu(),
            lambda number: self.part.videos.summary(samples[number].video_id).kinds(self.recipe, networks),
            [self._target(sample) for sample in samples],
            [sample.group for sample in samples],
            torch.Generator().manual_seed(derive_seed(self.recipe.seed, "landmarks", self.part.index)),
        )
        self.kernel_quality = dict(zip([sample.video_id for sample in samples], left_out.frames, strict=True))
        kernel.to(self.device)
        if self.averaged is not None:
            self.averaged.regressor.kernel = kernel

    def run(self, hooks: Hooks, state: FitState | None) -> FittedRegressor:
        if state is not None:
            self._restore(state)
        for epoch in range(len(self.curve), self.recipe.epochs):
            record = self._validate(epoch, self._train_epoch(hooks))
            if record.value > self.best_value:
                self.best_epoch, self.best_value = epoch, record.value
                self.best_weights = prefixed("best", _weights(self._tested))
            self.curve = (*self.curve, record)
            hooks.keep(self._state())
            hooks.on_epoch(record)
        if self.best_epoch is None:
            self.best_epoch, self.best_weights = self.recipe.epochs - 1, prefixed("best", _weights(self._tested))
        regressor = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        _set_weights(regressor, {name.removeprefix("best."): each for name, each in self.best_weights.items()})
        regressor.draw_dropout_from(None)
        return FittedRegressor(
            regressor.eval(), self.best_epoch, self.curve, self.kernel_quality, self.seconds, self.waited
        )

    @property
    def _tested(self) -> Regressor:
        """The regressor that is validated: the averaged one, or the one that learns where none is kept."""
        return self.regressor if self.averaged is None else self.averaged.regressor

    def _train_epoch(self, hooks: Hooks) -> float:
        """Return the mean loss over the epoch's batches."""
        self.model.train()
        losses = []
        begun = asked = time.perf_counter()
        for batch in prefetched(self._prepare, self._random_batches()):
            self.waited += time.perf_counter() - asked
            if not hooks.is_wanted():
                raise FitUnwantedError
            losses.append(self._step(batch))
            asked = time.perf_counter()
        self.seconds += time.perf_counter() - begun
        return float(np.mean(losses))

    def _step(self, batch: _Batch) -> float:
        predicted: Prediction = self.model(batch.inputs)
        loss = _loss_within_datasets(predicted.score, batch, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, self.recipe.gradient_norm)
        self.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        if self.averaged is not None:
            self.averaged.update(self.parameters)
        return loss.item()

    def _random_batches(self) -> Iterator[tuple[list[VideoSample], list[int]]]:
        """Yield every sample once, in random order, each with the number that its crop is chosen by."""
        order = torch.randperm(len(self.part.train), generator=self.generator)
        for batch in torch.split(order, _batch_sizes(len(order), self.recipe.batch_size)):
            draws = torch.randint(2**31, (len(batch),), generator=self.generator)
            yield [self.part.train[number] for number in batch.tolist()], draws.tolist()

    def _prepare(self, chosen: tuple[list[VideoSample], list[int]]) -> _Batch:
        samples, draws = chosen
        videos = [self.part.videos[sample.video_id] for sample in samples]
        crops = [[draw % video.crops] for video, draw in zip(videos, draws, strict=True)]
        told = [self.kernel_quality[sample.video_id] for sample in samples] if self.kernel_quality else None
        inputs = collate(videos, crops, self.device, told)
        target = torch.tensor([self._target(sample) for sample in samples], device=self.device)
        return _Batch(inputs, target, tuple(sample.dataset for sample in samples))

    def _target(self, sample: VideoSample) -> float:
        scale = self.scales[sample.dataset]
        return (sample.score - scale.mean) / scale.std

    def _validate(self, epoch: int, train_loss: float) -> EpochRecord:
        samples = self.part.validation
        ids = [sample.video_id for sample in samples]
        raw = predict_raw(self._tested, self.part.videos, ids, crops=self.recipe.validation_crops)
        figures: dict[str, list[float]] = {"srcc": [], "plcc": []}
        for dataset in dict.fromkeys(sample.dataset for sample in samples):
            true = [sample.score for sample in samples if sample.dataset == dataset]
            predicted = [raw[sample.video_id] for sample in samples if sample.dataset == dataset]
            figures["srcc"].append(spearman_correlation(true, predicted))
            figures["plcc"].append(pearson_correlation(true, predicted))
        rate = float(self.schedule.get_last_lr()[0])
        return EpochRecord(epoch, rate, train_loss, _mean_of(figures["srcc"]), _mean_of(figures["plcc"]))

    def _state(self) -> FitState:
        tensors = {
            **prefixed("model", _weights(self.regressor)),
            **prefixed("optimizer", optimizer_tensors(self.optimizer.optimizer)),
            **({} if self.averaged is None else prefixed("averaged", _weights(self.averaged.regressor))),
            **self.best_weights,
            "random.batches": self.generator.get_state(),
            "random.dropout": self.dropout.get_state(),
        }
        scaler = self.accelerator.scaler
        numbers = {
            "averaged": 0 if self.averaged is None else self.averaged.steps,
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
        }
        return FitState(tensors, numbers, self.best_epoch, self.curve)

    def _restore(self, state: FitState) -> None:
        _set_weights(self.regressor, state.part("model"))
        restore_optimizer(self.optimizer.optimizer, state.part("optimizer"))
        if self.averaged is not None:
            _set_weights(self.averaged.regressor, state.part("averaged"))
            self.averaged.steps = state.numbers["averaged"]
        self.schedule.load_state_dict(state.numbers["schedule"])
        for group, rate in zip(self.optimizer.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.numbers["scaler"])
        self.generator.set_state(state.tensors["random.batches"])
        self.dropout.set_state(state.tensors["random.dropout"])
        self.curve, self.best_epoch = state.curve, state.best_epoch
        self.best_weights = prefixed("best", state.part("best"))
        if self.best_epoch is not None:
            self.best_value = self.curve[self.best_epoch].value


class _AveragedWeights:
    """An exponential moving average of the weights of a regressor.

    Args:
        regressor: That learns.
        decay: Per step; it grows to that, so that the first weights are soon forgotten.
    """

    def __init__(self, regressor: Regressor, decay: float) -> None:
        self.regressor = copy.deepcopy(regressor).requires_grad_(False)
        self.steps = 0
        self._weights = list(self.regressor.parameters())
        self._decay = decay

    @torch.no_grad()
    def update(self, current: Sequence[Tensor]) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, self.steps / (9 + self.steps))
        for averaged, weight in zip(self._weights, current, strict=True):
            averaged.lerp_(weight, 1 - decay)
        self.steps += 1


@dataclass(frozen=True)
class _ScoreScale:
    mean: float
    std: float


def _score_scales(samples: Sequence[VideoSample]) -> dict[str, _ScoreScale]:
    """Return what the scores of each data set are standardised with."""
    scores: dict[str, list[float]] = {}
    for sample in samples:
        scores.setdefault(sample.dataset, []).append(sample.score)
    return {
        dataset: _ScoreScale(float(np.mean(those)), float(np.std(those)) or 1.0) for dataset, those in scores.items()
    }


def _loss_within_datasets(predicted: Tensor, batch: _Batch, recipe: TrainRecipe) -> Tensor:
    """Return the mean over the data sets, by their number of videos: scores of different sets are never compared."""
    names = dict.fromkeys(batch.datasets)
    if len(names) == 1:
        return quality_loss(predicted, batch.target, recipe.plcc_weight, recipe.rank_weight)
    total = (predicted * 0).sum()
    for name in names:
        members = [number for number, dataset in enumerate(batch.datasets) if dataset == name]
        loss = quality_loss(predicted[members], batch.target[members], recipe.plcc_weight, recipe.rank_weight)
        total = total + loss * (len(members) / len(batch.datasets))
    return total


def _build_regressor(part: TrainingPart, recipe: TrainRecipe, initial: Mapping[str, Tensor] | None) -> Regressor:
    first = part.videos[part.train[0].video_id]
    regressor = Regressor(recipe, first.resize_shape, first.crop_shape, part.videos.networks)
    if initial is None:
        regressor.set_input_statistics(part.videos.only([sample.video_id for sample in part.train]).moments())
    else:
        regressor.load_state_dict(dict(initial))
    return regressor


def _weights(regressor: Regressor) -> dict[str, Tensor]:
    """Return what is learned by gradients; the rest of the state dict is a function of the training part."""
    return dict(regressor.named_parameters())


@torch.no_grad()
def _set_weights(regressor: Regressor, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in regressor.named_parameters():
        parameter.copy_(weights[name])


def _batch_sizes(videos: int, size: int) -> list[int]:
    """Divide the videos into batches; a lone last video joins the batch before, since one has none to compare with."""
    full, rest = divmod(videos, size)
    sizes = [size] * full + ([rest] if rest else [])
    if rest == 1 and full:
        sizes[-2:] = [size + 1]
    return sizes


def _rate_at(step: int, steps: int, warm_up: float) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, steps - rising))


def _parameter_groups(regressor: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay the weight matrices alone: neither biases and norms nor, as in Mamba's own recipe, A_log."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in regressor.named_parameters():
        is_free = parameter.ndim < 2 or name.endswith(("A_log", "A_b_log"))
        (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _mean_of(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
