"""Random splits by content: videos of one content never stand on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from diffvqa.stages.errors import TrainingDataError
from diffvqa.stages.seeding import derive_seed
from diffvqa.stages.train_recipe import TrainRecipe

_PARTS = 3


@dataclass(frozen=True)
class Split:
    """One division of the videos into three parts.

    Attributes:
        train: Ids of the videos whose scores are learned from, sorted.
        validation: Ids of those that the best epoch is chosen on, sorted.
        test: Ids of those that are touched once, at the end, sorted.
        index: Number of the split, from 0; seeds the training on it.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    index: int = 0


def make_splits(groups: Mapping[str, str], recipe: TrainRecipe) -> tuple[Split, ...]:
    """Return ``recipe.splits`` random splits of the content groups.

    For each split the groups are ordered by the SHA-256 of (seed, split index, group). The first ``test_share`` of
    them, rounded and at least one, are the test part; the next ``validation_share`` of the rest, rounded and at least
    one, are the validation part; at least one is left to train on. The order of ``groups`` plays no part.

    Args:
        groups: The content group of each video id, such as the name of the source video.
        recipe: Its ``splits``, ``test_share``, ``validation_share`` and ``seed`` are used.

    Raises:
        TrainingDataError: There are fewer than three groups.
    """
    names = set(groups.values())
    if len(names) < _PARTS:
        raise TrainingDataError(
            f"The videos come from {len(names)} content group(s); training, validation and test need one each.",
            "Give videos of at least 3 different contents.",
        )
    return tuple(_make_split(groups, names, recipe, index) for index in range(recipe.splits))


def _make_split(groups: Mapping[str, str], names: Collection[str], recipe: TrainRecipe, index: int) -> Split:
    order = sorted(names, key=lambda group: (derive_seed(recipe.seed, index, group), group))
    tested = _share_of(recipe.test_share, len(order), leaving=2)
    validated = _share_of(recipe.validation_share, len(order) - tested, leaving=1)

    def videos_of(part: list[str]) -> tuple[str, ...]:
        chosen = frozenset(part)
        return tuple(sorted(video_id for video_id, group in groups.items() if group in chosen))

    return Split(
        train=videos_of(order[tested + validated :]),
        validation=videos_of(order[tested : tested + validated]),
        test=videos_of(order[:tested]),
        index=index,
    )


def _share_of(share: float, count: int, *, leaving: int) -> int:
    return min(max(1, round(share * count)), count - leaving)
