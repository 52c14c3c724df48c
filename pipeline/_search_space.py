"""Which settings of the training recipe a sweep tries, and between which bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from diffvqa.pipeline._errors import ConfigError, did_you_mean
from diffvqa.stages._train_recipe import TrainRecipe

if TYPE_CHECKING:
    from optuna import Trial

_HINT = "Write KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C."
_NEVER = ("splits", "test_share", "validation_share", "seed")


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``; where ``log`` is set, every factor is as likely as any other."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of some values."""

    values: tuple[Any, ...]


SearchSpace = Mapping[str, Between | OneOf]

DEFAULT_SPACE: SearchSpace = MappingProxyType(
    {
        "learning_rate": Between(2e-4, 1e-2, log=True),
        "weight_decay": Between(1e-3, 0.3, log=True),
        "dropout": Between(0.0, 0.5),
        "rank_weight": Between(0.0, 1.0),
        "ema": OneOf((0.0, 0.9, 0.95, 0.99)),
        "batch_size": OneOf((8, 16, 32)),
        "width": OneOf((16, 32, 64)),
        "head_width": OneOf((32, 64, 128)),
        "tcab_depth": OneOf((1, 2)),
        "dff": OneOf((True, False)),
        "tcab": OneOf((True, False)),
        "texture": OneOf((True, False)),
    }
)


def parse_space(assignments: Sequence[str]) -> SearchSpace:
    """Return the space that ``KEY=LOW:HIGH[:log]`` and ``KEY=A,B,C`` describe; the default for none.

    Raises:
        ConfigError: One is neither, names no setting of the recipe, or a bound is out of the setting's own.
    """
    if not assignments:
        return DEFAULT_SPACE
    return dict(_parse(assignment) for assignment in assignments)


def suggest(trial: Trial, space: SearchSpace, recipe: TrainRecipe) -> TrainRecipe:
    """Return the recipe with the values that a trial tries.

    Args:
        trial: Of Optuna.
        space: Where from.
        recipe: The other settings.
    """
    chosen: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, OneOf):
            chosen[key] = trial.suggest_categorical(key, values.values)
        elif _is_whole(key):
            chosen[key] = trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
        else:
            chosen[key] = trial.suggest_float(key, values.low, values.high, log=values.log)
    return TrainRecipe.model_validate({**recipe.model_dump(), **chosen})


def _parse(assignment: str) -> tuple[str, Between | OneOf]:
    key, _, text = (part.strip() for part in assignment.partition("="))
    known = [name for name in TrainRecipe.model_fields if name not in _NEVER]
    if key not in known:
        raise ConfigError(f"--search {assignment}: '{key}' cannot be searched.", did_you_mean(key, known) or _HINT)
    values: Between | OneOf
    try:
        if ":" in text:
            low, high, *log = text.split(":")
            values = Between(float(low), float(high), log == ["log"])
            if log not in ([], ["log"]) or not values.low < values.high or (values.log and values.low <= 0):
                raise ValueError
            ends: tuple[Any, ...] = (values.low, values.high)
        else:
            ends = tuple(TrainRecipe.model_validate({key: each.strip()}).model_dump()[key] for each in text.split(","))
            values = OneOf(ends)
        for end in ends:
            TrainRecipe.model_validate({key: end})
    except ValidationError as error:
        raise ConfigError(f"--search {assignment}: {error.errors()[0]['msg']}.", _HINT) from error
    except ValueError as error:
        raise ConfigError(f"--search {assignment} is no range and no list.", _HINT) from error
    return key, values


def _is_whole(key: str) -> bool:
    return TrainRecipe.model_fields[key].annotation is int
