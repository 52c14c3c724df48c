from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.stages._frames import FrameTimes, sample_slots

DURATIONS = st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60)


def shown(durations: list[float], *, promised_end: float | None = None) -> FrameTimes:
    edges = np.concatenate([[0.0], np.cumsum(durations)])
    return FrameTimes(edges[:-1], float(edges[-1]), promised_end)


def sampled(times: FrameTimes, *, frames: int, frames_per_second: float = 0.0) -> list[int | None]:
    return [slot.index for slot in sample_slots(times, frames=frames, frames_per_second=frames_per_second)]


@given(durations=DURATIONS, count=st.integers(1, 20))
def test_a_sampled_frame_is_the_one_on_screen_at_its_segments_centre(durations: list[float], count: int) -> None:
    times = shown(durations)
    indices = [slot.index for slot in sample_slots(times, frames=count)]
    assert 1 <= len(indices) <= min(count, len(durations))
    centres = (np.arange(count) + 0.5) / count * times.end
    on_screen = [
        next(i for i in reversed(range(len(durations))) if times.starts[i] <= centre + 1e-6) for centre in centres
    ]
    assert indices == sorted(set(on_screen))


@given(durations=DURATIONS, count=st.integers(1, 20), lost=st.floats(0.0, 3.0))
def test_where_the_file_ends_early_there_is_no_frame_and_never_the_last_one_again(
    durations: list[float], count: int, lost: float
) -> None:
    whole = shown([*durations, lost + 0.001])
    cut = shown(durations, promised_end=whole.end)
    expected = [None if index == len(durations) else index for index in sampled(whole, frames=count)]
    found = sampled(cut, frames=count)
    assert [index for index in found if index is not None] == [index for index in expected if index is not None]
    assert (None in found) == (None in expected)


@given(durations=DURATIONS, count=st.integers(1, 20), rate=st.floats(0.1, 30.0))
def test_frames_of_one_slot_stand_in_for_no_other(durations: list[float], count: int, rate: float) -> None:
    slots = sample_slots(shown(durations), frames=count, frames_per_second=rate)
    for before, after in itertools.pairwise(slots):
        assert before.stand_ins[1] <= after.stand_ins[0]
        assert before.index is not None
        assert after.index is not None
        assert before.index < after.index
        assert max(before.index, before.stand_ins[1] - 1) <= after.index


def test_a_constant_rate_gives_the_middle_of_each_segment() -> None:
    times = shown([1 / 25] * 80)
    assert sampled(times, frames=8) == [5, 15, 25, 35, 45, 55, 65, 75]


def test_a_rate_takes_a_frame_from_the_middle_of_each_of_its_intervals() -> None:
    times = shown([0.1] * 83)
    assert sampled(times, frames=100, frames_per_second=1.0) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert sampled(times, frames=100, frames_per_second=2.0) == list(range(2, 80, 5))


def test_a_rate_never_gives_more_frames_than_the_cap_nor_fewer_than_one() -> None:
    times = shown([0.1] * 80)
    assert sampled(times, frames=4, frames_per_second=1.0) == sampled(times, frames=4) == [10, 30, 50, 70]
    assert sampled(times, frames=4, frames_per_second=0.01) == [40]


def test_a_duration_of_a_whole_number_of_intervals_gives_that_many() -> None:
    assert len(sampled(shown([1 / 30] * 240), frames=100, frames_per_second=1.0)) == 8
    assert len(sampled(shown([0.1] * 70), frames=100, frames_per_second=1.0)) == 7


def test_one_frame_is_enough() -> None:
    assert sampled(shown([0.04]), frames=8) == [0]
    assert sampled(shown([0.04]), frames=8, frames_per_second=1.0) == [0]


def test_a_slow_stretch_of_a_variable_rate_gives_as_many_frames_as_its_time_is_worth() -> None:
    times = shown([1 / 30] * 10 + [0.2] * 10)
    assert sum(index is not None and index >= 10 for index in sampled(times, frames=4)) == 3
