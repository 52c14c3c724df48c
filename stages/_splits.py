"""Splits into training, validation and test videos that survive drift, by content: no content stands on both sides.

On which side a content group falls is decided by a hash of (seed, split, group) alone, so a video that is missing or
added later moves no other. A split that a data set comes with is kept as it is.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, get_args

from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._seeding import derive_seed
from diffvqa.stages._train_recipe import TrainRecipe

logger = logging.getLogger(__name__)

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_SHOWN = 5
_SPARE_BITS = 64 - 53  # of a hash: those that a float has no room for
_UNIT = 2.0**-53


@dataclass(frozen=True)
class Split:
    """One division of the videos into three parts.

    Attributes:
        train: Ids of the videos whose scores are learned from, sorted.
        validation: Ids of those that the best epoch is chosen on, sorted.
        test: Ids of those that are touched once, at the end, sorted.
        index: Number of the split, from 0; seeds the training on it.
        name: What tables and files call it: ``split-0`` and so on, or the name of an official split.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    index: int = 0
    name: str = ""

    def parts(self) -> Iterator[tuple[Part, tuple[str, ...]]]:
        """Yield the name and the ids of each part."""
        yield "train", self.train
        yield "validation", self.validation
        yield "test", self.test


def make_splits(
    groups: Mapping[str, str], recipe: TrainRecipe, official: Mapping[str, Mapping[str, Part]] | None = None
) -> tuple[Split, ...]:
    """Return the official splits where there are any, and else ``recipe.splits`` random ones.

    **Random.** For each split every content group has a place in [0, 1) for the test part and another for the
    validation part, both hashes of (seed, split index, group). A group is tested on when its first place lies below
    ``test_share``; of the others one is validated on when its second place lies below ``validation_share``. Only when
    that leaves a part of a tiny set empty, the groups with the lowest places (to fill test or validation) or the
    highest ones (to fill training) step in: at least one group is tested on, one validated on, and two trained on (one
    when there are only three).

    **Official.** The parts are as given. Videos that are in ``official`` but not in ``groups`` are left out, as are
    those it does not name. When no video is marked for validation, that part is carved from the training part as above,
    in the same way for all official splits. One whose test videos are all missing is left out with a warning, unless it
    is the only one.

    Args:
        groups: The content group of each video id, such as the name of the source video. Its order plays no part.
        recipe: Its ``splits``, ``test_share``, ``validation_share`` and ``seed`` are used.
        official: For each official split by name, the part of each video id; None or empty for random splits.

    Raises:
        TrainingDataError: There are fewer than three groups, or a part of an official split is empty.
    """
    if official:
        testable = [name for name, parts in official.items() if any(parts.get(each) == "test" for each in groups)]
        if testable and len(testable) < len(official):
            logger.warning(
                "left out, as no test video is there: split %s", first_of(set(official).difference(testable))
            )
        return tuple(
            _official_split(groups, recipe, name, official[name], index)
            for index, name in enumerate(testable or official)
        )
    names = set(groups.values())
    if len(names) < len(PARTS):
        raise TrainingDataError(
            f"The videos come from {len(names)} content group(s); training, validation and test need one each.",
            "Give videos of at least 3 different contents.",
        )
    by_id = dict(sorted(groups.items()))
    return tuple(_random_split(by_id, names, recipe, index) for index in range(recipe.splits))


def warn_of_shared_contents(split: Split, groups: Mapping[str, str]) -> int:
    """Warn when videos of one content group stand in several parts of a split; return how many groups do.

    Args:
        split: One that was made elsewhere.
        groups: The content group of each of its video ids.
    """
    contents = {part: {groups[video_id] for video_id in ids} for part, ids in split.parts()}
    trained_on = contents["train"] | contents["validation"]
    shared = (trained_on & contents["test"]) | (contents["train"] & contents["validation"])
    if shared:
        logger.warning(
            "split '%s': %d content group(s) stand in several of its parts, so its results flatter: %s",
            split.name,
            len(shared),
            first_of(shared),
        )
    return len(shared)


def require_all_parts(split: Split, hint: str) -> None:
    """Make sure that no part is empty.

    Raises:
        TrainingDataError: One is; ``hint`` says what to do.
    """
    for part, ids in split.parts():
        if not ids:
            raise TrainingDataError(f"Split '{split.name}' has no video to use for its part '{part}'.", hint)


def first_of(names: Collection[str]) -> str:
    """Return the first few of ``names``, sorted, for a message."""
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{shown}, …" if len(names) > _SHOWN else shown


def _random_split(groups: Mapping[str, str], names: AbstractSet[str], recipe: TrainRecipe, index: int) -> Split:
    tested = _draw(names, recipe.test_share, ("test", recipe.seed, index), leaving=3)
    remaining = names - tested
    validated = _draw_validation(remaining, recipe, index)
    return Split(
        train=_videos_of(remaining - validated, groups),
        validation=_videos_of(validated, groups),
        test=_videos_of(tested, groups),
        index=index,
        name=f"split-{index}",
    )


def _official_split(
    groups: Mapping[str, str], recipe: TrainRecipe, name: str, parts: Mapping[str, Part], index: int
) -> Split:
    train, validation, test = ({video_id for video_id in groups if parts.get(video_id) == part} for part in PARTS)
    if not validation:
        contents = {groups[video_id] for video_id in train}
        if len(contents) > 1:
            carved = _draw_validation(contents, recipe, index=0)
            validation = {video_id for video_id in train if groups[video_id] in carved}
            train -= validation
    split = Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)), index, name)
    require_all_parts(split, "Train with random splits, or mark videos of at least two contents for training.")
    warn_of_shared_contents(split, groups)
    return split


def _draw_validation(contents: AbstractSet[str], recipe: TrainRecipe, index: int) -> frozenset[str]:
    return _draw(contents, recipe.validation_share, ("validation", recipe.seed, index), leaving=2)


def _draw(contents: AbstractSet[str], share: float, draw: tuple[str, int, int], *, leaving: int) -> frozenset[str]:
    """Return the groups whose place lies below ``share``; at least one, and ``leaving`` or all but one at most."""
    key = derive_seed(*draw).to_bytes(8)
    places = {group: _place(group, key) for group in contents}
    below = frozenset(group for group, place in places.items() if place < share)
    most = max(1, len(places) - leaving)
    if 1 <= len(below) <= most:
        return below
    nearest = sorted(places, key=lambda group: (places[group], group))
    return frozenset(nearest[: 1 if not below else most])


def _place(group: str, key: bytes) -> float:
    """Return a number in [0, 1) that is a function of the arguments alone, evenly spread over groups."""
    digest = hashlib.blake2b(group.encode(errors="surrogatepass"), key=key, digest_size=8).digest()
    return (int.from_bytes(digest) >> _SPARE_BITS) * _UNIT


def _videos_of(contents: AbstractSet[str], groups: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(video_id for video_id, group in groups.items() if group in contents)
