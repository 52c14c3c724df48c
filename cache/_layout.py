"""How the arrays of a shard lie in its files: plain Zarr v3, with every video at a known place under a checksum.

Each array of a shard is one file: the videos in order, each as its bytes (little-endian, C order, zeros after its own
extent) and their CRC-32C, then the index that Zarr's sharding codec asks for. Nothing is compressed: features shrink
by less than a fifth, and decoding that takes longer than a disk takes to read it. As all videos of an array are
equally long, the place of each is known without its neighbours or the index: one range of one file is one read, and
damage anywhere else does not touch it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from diffvqa.cache._schema import ArraySpec

if TYPE_CHECKING:
    from zarr.storage import StoreLike

_CHECKSUM_BYTES = 4
_CHECKSUM = np.dtype("<u4")
_INDEX_ENTRY = np.dtype("<u8")


def create_array(store: StoreLike, spec: ArraySpec, videos: int) -> None:
    """Write the metadata of an array of ``videos`` videos, by which any Zarr reader finds what lies in its file."""
    zarr.create_array(
        store,
        name=spec.name,
        shape=(videos, *spec.shape),
        chunks=(1, *spec.shape),
        shards=(videos, *spec.shape),
        dtype=spec.dtype,
        filters=(),
        compressors=(Crc32cCodec(),),
        dimension_names=("video", *spec.dimensions),
        attributes=spec.attributes(),
        fill_value=0,
    )


def data_file(spec: ArraySpec) -> str:
    """Return the path, from the shard, of the file that holds an array."""
    return "/".join((spec.name, "c", *("0" for _ in ("video", *spec.shape))))


def encode_videos(spec: ArraySpec, videos: Iterable[NDArray[Any]]) -> bytearray:
    """Return the content of an array's file.

    Args:
        spec: Of the array.
        videos: Each of the type of ``spec`` and along no axis longer than it.
    """
    content, count = bytearray(), 0
    for video in videos:
        padded = np.zeros(spec.shape, _stored_dtype(spec))
        padded[tuple(slice(extent) for extent in video.shape)] = video
        content += padded.data
        content += _checksum(padded.reshape(-1).view(np.uint8))
        count += 1
    return content + index_of(spec, count)


def index_of(spec: ArraySpec, videos: int) -> bytes:
    """Return what an array's file ends in: offset and length of every video, and a checksum over them."""
    length = video_length(spec)
    entries = np.array([(number * length, length) for number in range(videos)], _INDEX_ENTRY)
    return entries.tobytes() + _checksum(entries.reshape(-1).view(np.uint8))


def video_length(spec: ArraySpec) -> int:
    """Return how many bytes each video takes in an array's file: video ``i`` begins at ``i`` times as many."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize + _CHECKSUM_BYTES


def decode_video(spec: ArraySpec, content: NDArray[np.uint8]) -> NDArray[Any]:
    """Return a video's array from its bytes in the file, in the full shape of ``spec``, sharing their memory.

    Raises:
        ValueError: The bytes are not what was written.
    """
    if len(content) != video_length(spec):
        raise ValueError(f"{len(content)} of {video_length(spec)} bytes are there")
    features, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if _checksum(features) != checksum.tobytes():
        raise ValueError("its bytes do not match their checksum")
    return features.view(_stored_dtype(spec)).reshape(spec.shape).astype(spec.dtype, copy=False)


def _stored_dtype(spec: ArraySpec) -> np.dtype[Any]:
    return np.dtype(spec.dtype).newbyteorder("<")


def _checksum(content: NDArray[np.uint8]) -> bytes:
    return np.array(google_crc32c.value(content), _CHECKSUM).tobytes()
