from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.stages._views import crop_views, pad_to_view, place_crops, resize_view

SIZE = 16


def gradient(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


@given(height=st.integers(1, 60), width=st.integers(1, 60), crops=st.integers(1, 4), seed=st.integers(0, 99))
def test_crops_are_untouched_pixels_of_the_frame(height: int, width: int, crops: int, seed: int) -> None:
    frame = gradient(height, width)
    placement = place_crops("v", height, width, crops=crops, view_size=SIZE, seed=seed)
    views = crop_views(frame, placement)
    assert views.shape == (crops, SIZE, SIZE, 3)
    padded = pad_to_view(frame, SIZE)
    np.testing.assert_array_equal(padded[:height, :width], frame)
    assert padded.shape == (max(height, SIZE), max(width, SIZE), 3)
    for view, (top, left) in zip(views, placement.positions, strict=True):
        assert 0 <= top <= max(height - SIZE, 0)
        assert 0 <= left <= max(width - SIZE, 0)
        np.testing.assert_array_equal(view, padded[top : top + SIZE, left : left + SIZE])


def test_places_follow_from_seed_and_id_alone() -> None:
    def places(video_id: str, *, crops: int = 3, seed: int = 0) -> list[tuple[int, int]]:
        placement = place_crops(video_id, 500, 700, crops=crops, view_size=SIZE, seed=seed)
        return [(int(top), int(left)) for top, left in placement.positions]

    assert places("a") == places("a")
    assert places("a") != places("b")
    assert places("a") != places("a", seed=1)
    assert places("a", crops=5)[:3] == places("a")


def test_a_crop_can_reach_every_corner() -> None:
    tops = {
        int(place_crops(f"v{index}", SIZE + 2, SIZE, crops=1, view_size=SIZE, seed=0).positions[0, 0])
        for index in range(40)
    }
    assert tops == {0, 1, 2}


def test_a_resized_view_keeps_the_mean_colour_and_the_layout() -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    frame[:45, :80] = (255, 0, 0)
    view = resize_view(frame, SIZE)
    assert view.shape == (SIZE, SIZE, 3)
    assert view.dtype == np.uint8
    assert abs(float(view[..., 0].mean()) - float(frame[..., 0].mean())) < 2
    assert view[2, 2].tolist() == [255, 0, 0]
    assert view[-3, -3].tolist() == [0, 0, 0]
