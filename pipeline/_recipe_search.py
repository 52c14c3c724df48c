"""Trying recipes: asked of a study, each trained on one split after the other, here or on a cluster.

The study belongs to this process: others are given a recipe and a split, and answer with a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

import numpy as np
from optuna import Study, Trial
from optuna.trial import TrialState

from diffvqa.pipeline._config import Runtime
from diffvqa.pipeline._engines.interface import CallPlace, Engine
from diffvqa.pipeline._labelled import LabelledSets
from diffvqa.pipeline._search_space import SearchSpace, suggest
from diffvqa.pipeline._stage_two import training_setup
from diffvqa.stages._fitting import fit_regressor
from diffvqa.stages._splits import Split
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training import checked_samples, training_part
from diffvqa.stages._video_store import VideoStore

_UNDEFINED = -1.0


class SearchMaterial:
    """What recipes are tried on; the features are read when the first one is.

    Args:
        labelled: Features and labels.
        splits: Of which the training and validation parts are used.
        runtime: Memory for features.
    """

    def __init__(self, labelled: LabelledSets, splits: Sequence[Split], runtime: Runtime) -> None:
        self.labelled = labelled
        self.splits = tuple(splits)
        self.runtime = runtime
        self._samples = checked_samples(labelled.samples)
        self._videos: VideoStore | None = None

    def value(self, recipe: TrainRecipe, split: Split, place: CallPlace) -> float:
        """Return (SRCC + PLCC) / 2 of a recipe's best epoch on the validation part of a split; -1 if undefined."""
        setup = training_setup(place.applied_to(self.runtime))
        if self._videos is None:
            learned = dict.fromkeys(video_id for each in self.splits for video_id in (*each.train, *each.validation))
            networks = self.labelled.networks
            self._videos = VideoStore(self.labelled, tuple(learned), memory_limit=setup.memory_limit, networks=networks)
        fitted = fit_regressor(training_part(self._videos, self._samples, split), recipe, setup.device)
        value = fitted.curve[fitted.best_epoch].value / 2
        return value if np.isfinite(value) else _UNDEFINED


class RecipeSearch:
    """Has a study's trials done.

    Args:
        study: Only this process touches it.
        engine: Entered.
        material: To try recipes on.
        space: What to try.
        recipe: The other settings.
    """

    def __init__(
        self, study: Study, engine: Engine, material: SearchMaterial, space: SearchSpace, recipe: TrainRecipe
    ) -> None:
        self._study = study
        self._engine = engine
        self._material = material
        self._space = space
        self._recipe = recipe

    def run(self, trials: int) -> Iterator[TrialState]:
        """Begin ``trials`` trials, and yield how each ends: complete, or pruned.

        As many are under way as the engine has room for, each on one split at a time, so that it can be given up after
        any.
        """
        left, to_go_on = trials, deque[_UnderWay]()
        running: dict[Future[float], _UnderWay] = {}
        while True:
            while len(running) < self._engine.calls_at_once and (to_go_on or left):
                if to_go_on:
                    following = to_go_on.popleft()
                else:
                    following = self._asked()
                    left -= 1
                call = _RecipeCall(self._material, following.recipe, self._material.splits[len(following.values)])
                running[self._engine.submit(_try, call)] = following
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                under_way = running.pop(future)
                under_way.values.append(future.result())
                state = self._told(under_way)
                if state is None:
                    to_go_on.append(under_way)
                else:
                    yield state

    def _asked(self) -> _UnderWay:
        trial = self._study.ask()
        return _UnderWay(trial, suggest(trial, self._space, self._recipe))

    def _told(self, under_way: _UnderWay) -> TrialState | None:
        """Tell the study what is known of a trial, and return how it ends if it does."""
        trial, values = under_way.trial, under_way.values
        mean = float(np.mean(values))
        trial.report(mean, len(values) - 1)
        if len(values) == len(self._material.splits):
            return self._study.tell(trial, mean).state
        if trial.should_prune():
            return self._study.tell(trial, state=TrialState.PRUNED).state
        return None


@dataclass
class _UnderWay:
    """A trial that has begun; ``values`` are of the splits that it was tried on so far."""

    trial: Trial
    recipe: TrainRecipe
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _RecipeCall:
    material: SearchMaterial
    recipe: TrainRecipe
    split: Split

    def __reduce__(self) -> tuple[type[_RecipeCall], tuple[SearchMaterial, TrainRecipe, Split]]:
        # Whoever does it elsewhere needs the features of this split alone, and reads them there.
        here = self.material
        return type(self), (SearchMaterial(here.labelled, (self.split,), here.runtime), self.recipe, self.split)


def _try(call: _RecipeCall, place: CallPlace) -> float:
    return call.material.value(call.recipe, call.split, place)
