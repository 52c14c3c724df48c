from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from diffvqa.cache._layout import create_array, data_file, decode_video, encode_videos, index_of, video_length
from diffvqa.cache._schema import ArraySpec

EXTENTS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def a_spec(shape: tuple[int, ...], dtype: str) -> ArraySpec:
    return ArraySpec(
        name="crop/latent",
        dimensions=tuple(f"d{axis}" for axis in range(len(shape))),
        shape=shape,
        dtype=dtype,
        unit="1",
        value_range=None,
        description="anything",
    )


@st.composite
def videos_of_a_spec(draw: st.DrawFn) -> tuple[ArraySpec, list[NDArray[Any]]]:
    spec = a_spec(tuple(draw(EXTENTS)), draw(st.sampled_from(["float16", "uint8", "float32", "int64"])))
    extents = st.tuples(*(st.integers(1, extent) for extent in spec.shape))
    count = draw(st.integers(1, 5))
    return spec, [draw(hnp.arrays(np.dtype(spec.dtype), draw(extents))) for _ in range(count)]


def padded(spec: ArraySpec, video: NDArray[Any]) -> NDArray[Any]:
    return np.pad(video, [(0, full - own) for full, own in zip(spec.shape, video.shape, strict=True)])


@settings(max_examples=40)
@given(material=videos_of_a_spec())
def test_the_file_is_byte_for_byte_the_one_that_zarr_writes(
    material: tuple[ArraySpec, list[NDArray[Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec, videos = material
    folder = tmp_path_factory.mktemp("shard")
    create_array(folder, spec, len(videos))
    for video in videos:
        video.flat[0] = 1  # Zarr leaves out what is all zeros, this module does not
    by_zarr = zarr.open_array(folder / spec.name, mode="r+")
    by_zarr[:] = np.stack([padded(spec, video) for video in videos])
    assert (folder / data_file(spec)).read_bytes() == encode_videos(spec, videos)


@settings(max_examples=40)
@given(material=videos_of_a_spec())
def test_zarr_and_this_module_read_back_every_bit(
    material: tuple[ArraySpec, list[NDArray[Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec, videos = material
    folder = tmp_path_factory.mktemp("shard")
    create_array(folder, spec, len(videos))
    file = folder / data_file(spec)
    file.parent.mkdir(parents=True)
    file.write_bytes(encode_videos(spec, videos))
    opened = zarr.open_array(folder / spec.name, mode="r")
    content, length = np.fromfile(file, np.uint8), video_length(spec)
    for number, video in enumerate(videos):
        expected = padded(spec, video).tobytes()
        assert np.asarray(opened[number]).tobytes() == expected
        decoded = decode_video(spec, content[number * length : (number + 1) * length])
        assert (decoded.dtype, decoded.shape) == (np.dtype(spec.dtype), spec.shape)
        assert decoded.tobytes() == expected
        decoded[...] = 0  # a reader may write to what it was given


def test_every_flipped_bit_and_every_cut_in_a_video_is_found() -> None:
    spec = a_spec((3, 2), "float16")
    content = np.frombuffer(encode_videos(spec, [np.ones((3, 2), np.float16)]), np.uint8)[: video_length(spec)]
    for bit in range(8 * len(content)):
        flipped = content.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="do not match their checksum"):
            decode_video(spec, flipped)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=f"{length} of {len(content)} bytes"):
            decode_video(spec, content[:length])


def test_the_index_tells_zarr_where_each_video_lies() -> None:
    spec = a_spec((2, 3), "uint8")
    entries = np.frombuffer(index_of(spec, 3)[:-4], "<u8").reshape(3, 2)
    assert entries.tolist() == [[0, 10], [10, 10], [20, 10]]
