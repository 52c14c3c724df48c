from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diffvqa.stages.errors import TrainingDataError
from diffvqa.stages.splits import make_splits
from diffvqa.stages.train_recipe import TrainRecipe

grouped_videos = st.dictionaries(
    st.text("abcdefgh/.", min_size=1, max_size=6), st.sampled_from([f"scene {n}" for n in range(8)]), min_size=3
).filter(lambda groups: len(set(groups.values())) >= 3)
recipes = st.builds(
    TrainRecipe,
    splits=st.integers(1, 4),
    test_share=st.floats(0.01, 0.99),
    validation_share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
)


@given(grouped_videos, recipes)
def test_the_parts_are_complete_and_no_group_stands_in_two(groups: dict[str, str], recipe: TrainRecipe) -> None:
    splits = make_splits(groups, recipe)
    assert [split.index for split in splits] == list(range(recipe.splits))
    for split in splits:
        parts = (split.train, split.validation, split.test)
        assert all(parts)
        assert sorted(video_id for part in parts for video_id in part) == sorted(groups)
        contents = [{groups[video_id] for video_id in part} for part in parts]
        assert sum(len(content) for content in contents) == len(set().union(*contents))


@given(grouped_videos, recipes, st.data())
def test_the_order_of_the_videos_plays_no_part(
    groups: dict[str, str], recipe: TrainRecipe, data: st.DataObject
) -> None:
    reordered = dict(data.draw(st.permutations(list(groups.items()))))
    assert make_splits(reordered, recipe) == make_splits(groups, recipe)


@given(st.integers(3, 40), st.floats(0.05, 0.6), st.floats(0.05, 0.6))
def test_the_shares_are_those_of_the_groups(count: int, test_share: float, validation_share: float) -> None:
    recipe = TrainRecipe(splits=1, test_share=test_share, validation_share=validation_share)
    (split,) = make_splits({f"v{n}": f"g{n}" for n in range(count)}, recipe)
    tested = min(max(1, round(test_share * count)), count - 2)
    assert len(split.test) == tested
    assert len(split.validation) == min(max(1, round(validation_share * (count - tested))), count - tested - 1)


def test_splits_and_seeds_differ() -> None:
    groups = {f"v{n}": f"g{n}" for n in range(20)}
    tests = {split.test for seed in range(3) for split in make_splits(groups, TrainRecipe(splits=3, seed=seed))}
    assert len(tests) == 9


def test_fewer_than_three_groups_cannot_be_split() -> None:
    with pytest.raises(TrainingDataError, match="2 content group") as error:
        make_splits({"a": "x", "b": "y", "c": "y"}, TrainRecipe())
    assert "3" in error.value.hint


@pytest.mark.parametrize("setting", [{"splits": 0}, {"test_share": 1.0}, {"dropout": -0.1}, {"epoch": 3}])
def test_the_recipe_rejects_bad_values_and_unknown_keys(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainRecipe.model_validate(setting)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in TrainRecipe.model_fields.values())
