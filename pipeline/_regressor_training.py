"""Training the regressors of stage two: all in this process, or each split as a task of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from diffvqa.pipeline._config import Runtime, Settings
from diffvqa.pipeline._engines.choice import choose_engine
from diffvqa.pipeline._engines.interface import CallPlace, Engine, as_done
from diffvqa.pipeline._labelled import LabelledSets
from diffvqa.pipeline._stage_two import training_setup
from diffvqa.stages._fit_state import FitState
from diffvqa.stages._scan.selective_scan import choose_scan
from diffvqa.stages._splits import Split
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training import (
    PRETRAINING,
    CrossValidation,
    TrainedSplit,
    TrainingSetup,
    pretrain_regressor,
    split_fit,
    train_all,
)
from diffvqa.stages._training_journal import TrainingJournal


@dataclass(frozen=True)
class TrainingWork:
    """What is to be trained on, and with what recipe.

    Attributes:
        labelled: Features and labels.
        recipe: Of the regressors.
        initial: Weights to fine-tune; None for random ones.
    """

    labelled: LabelledSets
    recipe: TrainRecipe
    initial: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class TrainedRegressors:
    """What came of a training.

    Attributes:
        result: The regressors of all splits, and how they do.
        scan: Which implementation of the selective scan ran, and why; empty where none did.
    """

    result: CrossValidation
    scan: str


class RegressorTrainer(Protocol):
    """Trains regressors; what is in its journal already is not done again."""

    def pretrain(
        self, work: TrainingWork, split: Split, journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> dict[str, Tensor]:
        """Return the weights of one regressor for others to start from."""
        ...

    def train(
        self, work: TrainingWork, splits: Sequence[Split], journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> TrainedRegressors:
        """Train and test a regressor on each split."""
        ...


@contextmanager
def regressor_trainer(settings: Settings) -> Iterator[RegressorTrainer]:
    """Give the trainer that the runtime asks for.

    Raises:
        ClusterError: The Ray cluster cannot be used.
    """
    if settings.runtime.engine == "local":
        yield TrainerHere(settings.runtime)
    else:
        with choose_engine(settings) as engine:
            yield ClusterTrainer(settings.runtime, engine)


class TrainerHere:
    """Trains in this process, where the splits share the features in memory.

    Args:
        runtime: Where to compute.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def pretrain(
        self, work: TrainingWork, split: Split, journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> dict[str, Tensor]:
        """Return the weights; the journal has the state after each epoch."""
        setup = training_setup(self._runtime, journal, on_epoch)
        labelled = work.labelled
        return pretrain_regressor(labelled, labelled.samples, split, work.recipe, setup, networks=labelled.networks)

    def train(
        self, work: TrainingWork, splits: Sequence[Split], journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> TrainedRegressors:
        """Train and test; the journal has the state after each epoch."""
        setup = training_setup(self._runtime, journal, on_epoch)
        labelled = work.labelled
        result = train_all(
            labelled,
            labelled.samples,
            splits,
            work.recipe,
            setup,
            initial=work.initial,
            networks=labelled.networks,
        )
        return TrainedRegressors(result, _scan_that_ran(work.recipe, setup))


class ClusterTrainer:
    """Has each split trained by a task of a cluster, which reads the features itself.

    Args:
        runtime: Memory for features, of each task.
        engine: Entered.
    """

    def __init__(self, runtime: Runtime, engine: Engine) -> None:
        self._runtime = runtime
        self._engine = engine

    def pretrain(
        self, work: TrainingWork, split: Split, journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> dict[str, Tensor]:
        """Return the weights; the journal has the state of a pretraining that is done."""
        call = _FitCall(work, split, self._runtime, journal.state_of(PRETRAINING))
        pretrained = self._engine.submit(_pretrain, call).result()
        journal.keep(PRETRAINING, pretrained.state)
        for _ in range(work.recipe.pretrain_epochs):
            on_epoch()
        return pretrained.weights

    def train(
        self, work: TrainingWork, splits: Sequence[Split], journal: TrainingJournal, on_epoch: Callable[[], None]
    ) -> TrainedRegressors:
        """Train and test; the journal has the states of the splits that are done."""
        # Taken from the journal as they are sent, so that not all are in memory at once.
        calls = (_FitCall(work, split, self._runtime, journal.state_of(split_fit(split))) for split in splits)
        done: dict[int, _Trained] = {}
        for number, trained in as_done(self._engine, _train, calls):
            journal.keep(split_fit(splits[number]), trained.state)
            done[number] = trained
            for _ in range(work.recipe.epochs):
                on_epoch()
        result = CrossValidation(tuple(done[number].split for number in range(len(splits))))
        return TrainedRegressors(result, done[0].scan)


@dataclass(frozen=True)
class _FitCall:
    """One fit for a task; ``state`` is where an interrupted one goes on."""

    work: TrainingWork
    split: Split
    runtime: Runtime
    state: FitState | None


@dataclass(frozen=True)
class _Trained:
    split: TrainedSplit
    state: FitState
    scan: str


@dataclass(frozen=True)
class _Pretrained:
    weights: dict[str, Tensor]
    state: FitState


class _LatestState:
    """A journal of a single fit, in memory."""

    def __init__(self, state: FitState | None) -> None:
        self._state = state

    def state_of(self, _fit: str) -> FitState | None:
        return self._state

    def keep(self, _fit: str, state: FitState) -> None:
        self._state = state

    def on_the_cpu(self) -> FitState:
        """Return it as a process without the device can read it."""
        assert self._state is not None  # noqa: S101  # a fit has at least one epoch
        return replace(self._state, tensors={name: tensor.cpu() for name, tensor in self._state.tensors.items()})


def _train(call: _FitCall, place: CallPlace) -> _Trained:
    latest = _LatestState(call.state)
    setup = training_setup(place.applied_to(call.runtime), latest)
    labelled, recipe, initial = call.work.labelled, call.work.recipe, call.work.initial
    (trained,) = train_all(
        labelled, labelled.samples, [call.split], recipe, setup, initial=initial, networks=labelled.networks
    ).splits
    fitted = replace(trained.fitted, regressor=trained.regressor.cpu())
    return _Trained(replace(trained, fitted=fitted), latest.on_the_cpu(), _scan_that_ran(recipe, setup))


def _scan_that_ran(recipe: TrainRecipe, setup: TrainingSetup) -> str:
    # To ask compiles the kernels where nobody has, which takes half a minute.
    return str(choose_scan(setup.device)) if recipe.tcab else ""


def _pretrain(call: _FitCall, place: CallPlace) -> _Pretrained:
    latest = _LatestState(call.state)
    setup = training_setup(place.applied_to(call.runtime), latest)
    labelled = call.work.labelled
    weights = pretrain_regressor(
        labelled, labelled.samples, call.split, call.work.recipe, setup, networks=labelled.networks
    )
    return _Pretrained(weights, latest.on_the_cpu())
