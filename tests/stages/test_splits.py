"""Splits: complete, by content, and such that a missing or an added video moves no other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._splits import Part, Split, make_splits
from diffvqa.stages._train_recipe import TrainRecipe

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

SOME_OF_EACH_PART = 3


def part_of_each(split: Split) -> dict[str, Part]:
    return {video_id: part for part, ids in split.parts() for video_id in ids}


def every_part_is_there(split: Split, video_ids: set[str]) -> bool:
    return all(len(video_ids.intersection(ids)) >= SOME_OF_EACH_PART for _part, ids in split.parts())


@given(grouped_videos, recipes)
def test_the_parts_are_complete_and_no_group_stands_in_two(groups: dict[str, str], recipe: TrainRecipe) -> None:
    splits = make_splits(groups, recipe)
    assert [split.index for split in splits] == list(range(recipe.splits))
    assert [split.name for split in splits] == [f"split-{index}" for index in range(recipe.splits)]
    for split in splits:
        parts = (split.train, split.validation, split.test)
        assert all(parts)
        assert sorted(video_id for part in parts for video_id in part) == sorted(groups)
        contents = [{groups[video_id] for video_id in part} for part in parts]
        assert sum(len(content) for content in contents) == len(set().union(*contents))
        assert len(contents[0]) >= min(2, len(set(groups.values())) - 2)


@given(grouped_videos, recipes, st.data())
def test_the_order_of_the_videos_plays_no_part(
    groups: dict[str, str], recipe: TrainRecipe, data: st.DataObject
) -> None:
    reordered = dict(data.draw(st.permutations(list(groups.items()))))
    assert make_splits(reordered, recipe) == make_splits(groups, recipe)


@given(
    st.dictionaries(st.integers(0, 99), st.integers(0, 199)),
    st.sets(st.integers(0, 199)),
    st.sets(st.integers(0, 99)),
    st.integers(0, 2**40),
    st.sampled_from([(0.2, 0.2), (0.2, 0.1), (0.5, 0.3)]),
)
def test_a_missing_or_added_video_moves_no_other(
    added: dict[int, int], removed: set[int], removed_contents: set[int], seed: int, shares: tuple[float, float]
) -> None:
    recipe = TrainRecipe(splits=3, seed=seed, test_share=shares[0], validation_share=shares[1])
    groups = {f"base {number}.mp4": f"content {number // 2}" for number in range(200)}
    # Single videos go and come, and with them whole contents: those from 100 on are new.
    changed = {name: group for number, (name, group) in enumerate(groups.items()) if number not in removed}
    changed = {name: group for name, group in changed.items() if int(group.split()[1]) not in removed_contents}
    changed |= {f"added {number}.mp4": f"content {content}" for number, content in added.items()}
    if len(set(changed.values())) < 3:
        return
    for before, after in zip(make_splits(groups, recipe), make_splits(changed, recipe), strict=True):
        sides = part_of_each(before)
        # The law holds as long as no part would be empty; that is for the next test.
        if every_part_is_there(before, set(changed)):
            assert {name: sides[name] for name in changed if name in sides} == {
                name: part for name, part in part_of_each(after).items() if name in sides
            }


def test_even_in_a_tiny_set_only_those_move_that_must() -> None:
    recipe = TrainRecipe(splits=200)
    tiny = {f"v{number}": f"v{number}" for number in range(6)}
    moved = 0
    for before, after in zip(make_splits(tiny, recipe), make_splits(tiny | {"new": "new"}, recipe), strict=True):
        sides, sides_after = part_of_each(before), part_of_each(after)
        moved += sum(sides_after[video_id] != side for video_id, side in sides.items())
    assert moved / (6 * 200) < 0.08


def test_a_larger_share_only_adds_to_the_test_part() -> None:
    groups = {f"v{number}": f"g{number}" for number in range(300)}
    for small, large in zip(
        make_splits(groups, TrainRecipe(test_share=0.2)), make_splits(groups, TrainRecipe(test_share=0.3)), strict=True
    ):
        assert set(small.test) < set(large.test)


@settings(max_examples=25)  # each draws 4,000 places
@given(st.floats(0.1, 0.6), st.floats(0.1, 0.6), st.integers(0, 2**40))
def test_the_shares_are_those_of_the_groups(test_share: float, validation_share: float, seed: int) -> None:
    recipe = TrainRecipe(splits=1, test_share=test_share, validation_share=validation_share, seed=seed)
    (split,) = make_splits({f"v{n}": f"g{n}" for n in range(4000)}, recipe)
    # Six standard deviations of a share of at least 1,600 independent draws.
    assert len(split.test) / 4000 == pytest.approx(test_share, abs=0.05)
    assert len(split.validation) / (4000 - len(split.test)) == pytest.approx(validation_share, abs=0.076)


def test_validation_is_drawn_independently_of_the_test_part() -> None:
    groups = {f"v{n}": f"g{n}" for n in range(2000)}
    (narrow,) = make_splits(groups, TrainRecipe(splits=1, test_share=0.1))
    (wide,) = make_splits(groups, TrainRecipe(splits=1, test_share=0.5))
    assert set(wide.validation) < set(narrow.validation)
    assert len(wide.validation) / (2000 - len(wide.test)) == pytest.approx(0.2, abs=0.05)


def test_splits_are_the_same_on_every_machine_and_in_every_version() -> None:
    (split,) = make_splits({f"v{n}": f"g{n}" for n in range(12)}, TrainRecipe(splits=1))
    assert (split.validation, split.test) == (("v1",), ("v2", "v7"))


def test_splits_and_seeds_differ() -> None:
    groups = {f"v{n}": f"g{n}" for n in range(20)}
    tests = {split.test for seed in range(3) for split in make_splits(groups, TrainRecipe(splits=3, seed=seed))}
    assert len(tests) == 9


def test_fewer_than_three_groups_cannot_be_split() -> None:
    with pytest.raises(TrainingDataError, match="2 content group") as error:
        make_splits({"a": "x", "b": "y", "c": "y"}, TrainRecipe())
    assert "3" in error.value.hint


def official(**videos_of: str) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for part in ("train", "validation", "test"):
        parts |= dict.fromkeys(videos_of.get(part, ""), part)
    return parts


def test_official_splits_are_kept_as_they_are() -> None:
    groups = {name: name for name in "abcdefgh"}
    splits = make_splits(
        groups,
        TrainRecipe(),
        {
            "first": official(train="abcd", validation="ef", test="gh"),
            "second": official(train="efgh", validation="c", test="ab"),
        },
    )
    assert splits == (
        Split(tuple("abcd"), tuple("ef"), tuple("gh"), 0, "first"),
        Split(tuple("efgh"), ("c",), tuple("ab"), 1, "second"),
    )


def test_the_validation_part_is_carved_from_official_training_by_content_and_stays_when_videos_go() -> None:
    groups = {f"v{number}": f"g{number // 2}" for number in range(100)}
    parts: dict[str, Part] = {name: "test" if number >= 80 else "train" for number, name in enumerate(groups)}
    (split,) = make_splits(groups, TrainRecipe(), {"official": parts})
    assert split.test == tuple(sorted(f"v{number}" for number in range(80, 100)))
    assert 4 <= len(split.validation) <= 28
    assert not {groups[name] for name in split.validation} & {groups[name] for name in split.train}
    fewer = {name: group for name, group in groups.items() if group not in {"g3", "g20", "g45"}}
    (after,) = make_splits(fewer, TrainRecipe(), {"official": parts})
    assert part_of_each(after) == {name: part for name, part in part_of_each(split).items() if name in fewer}


def test_official_splits_that_share_their_training_part_share_its_validation_too() -> None:
    groups = {f"v{number}": f"g{number}" for number in range(50)}
    training: dict[str, Part] = dict.fromkeys(list(groups)[:40], "train")
    one, two = make_splits(
        groups,
        TrainRecipe(),
        {
            "one": training | dict.fromkeys(list(groups)[40:45], "test"),
            "two": training | dict.fromkeys(list(groups)[45:], "test"),
        },
    )
    assert (one.train, one.validation) == (two.train, two.validation)


def test_an_official_split_whose_test_videos_are_missing_is_left_out(logged: pytest.LogCaptureFixture) -> None:
    groups = {name: name for name in "abcdef"}
    parts = official(train="abc", validation="d")
    (split,) = make_splits(
        groups, TrainRecipe(), {"gone": parts | official(test="xyz"), "there": parts | official(test="ef")}
    )
    assert (split.name, split.index, split.test) == ("there", 0, ("e", "f"))
    assert "left out, as no test video is there: split gone" in logged.text


def test_videos_outside_the_official_split_are_left_out() -> None:
    groups = {name: name for name in "abcdefx"}
    (split,) = make_splits(groups, TrainRecipe(), {"official": official(train="abcz", validation="d", test="ef")})
    assert part_of_each(split) == official(train="abc", validation="d", test="ef")


@pytest.mark.parametrize(("parts", "empty"), [({"train": "abc"}, "test"), ({"test": "abc"}, "train")])
def test_an_official_split_without_a_part_is_refused(parts: dict[str, str], empty: str) -> None:
    with pytest.raises(TrainingDataError, match=f"Split 'official' has no video to use for its part '{empty}'"):
        make_splits({name: name for name in "abc"}, TrainRecipe(), {"official": official(**parts)})


def test_an_official_split_with_one_training_content_has_nothing_to_validate_on() -> None:
    with pytest.raises(TrainingDataError, match="'validation'") as error:
        make_splits({"a": "g", "b": "g", "c": "h"}, TrainRecipe(), {"official": official(train="ab", test="c")})
    assert "two contents" in error.value.hint


def test_a_content_on_both_sides_of_an_official_split_is_warned_of(logged: pytest.LogCaptureFixture) -> None:
    groups = {"a": "one", "b": "one", "c": "two", "d": "three"}
    parts = official(train="ac", validation="d", test="b")
    (split,) = make_splits(groups, TrainRecipe(), {"official": parts})
    assert part_of_each(split) == parts
    assert "1 content group(s) stand in several of its parts, so its results flatter: one" in logged.text


@pytest.mark.parametrize("setting", [{"splits": 0}, {"test_share": 1.0}, {"dropout": -0.1}, {"epoch": 3}])
def test_the_recipe_rejects_bad_values_and_unknown_keys(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainRecipe.model_validate(setting)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in TrainRecipe.model_fields.values())
