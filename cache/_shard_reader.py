"""Reading one shard, every value checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache._errors import CacheCorruptError
from diffvqa.cache._layout import data_file, decode_video, video_length
from diffvqa.cache._schema import ArraySpec, VideoRow, parse_mark
from diffvqa.cache._shards import data_folder, digest_of, mark_file
from diffvqa.cache._storage import Storage


class ShardReader:
    """One shard of a cache.

    Args:
        storage: Of the cache.
        name: The shard's.
        specs: The arrays of the cache.

    Raises:
        CacheCorruptError: Its mark is damaged or gone.
        SchemaTooNewError: It was written by newer software.
        CacheUnreachableError: The storage cannot be read.
    """

    def __init__(self, storage: Storage, name: str, specs: Sequence[ArraySpec]) -> None:
        self.name = name
        self._storage = storage
        self._specs = {spec.name: spec for spec in specs}
        where = storage.describe(mark_file(name))
        try:
            self.mark = parse_mark(storage.read(mark_file(name)), where)
        except FileNotFoundError as error:
            raise CacheCorruptError(f"{where} is not there any more.", "Open the cache again.") from error
        self.usable: tuple[VideoRow, ...] = tuple(row for row in self.mark.rows if row.status == "ok")

    def read(self, slot: int, array: str) -> NDArray[Any]:
        """Return an array of the usable video at ``slot``, with the video's own numbers of frames and crops.

        The bytes are checked against the checksum beside them. Their digest is not taken: that is slower than a disk.

        Raises:
            CacheCorruptError: It is not what was written; the message names the video and the array.
            CacheUnreachableError: The storage cannot be read.
        """
        content = np.empty(video_length(self._specs[array]), np.uint8)
        try:
            there = self._storage.read_into(self.file_of(array), slot * len(content), content)
        except FileNotFoundError as error:
            raise self._damaged(slot, array, "its file is not there") from error
        return self._decoded(slot, array, content[:there])

    def verify(self, slot: int, array: str, content: NDArray[np.uint8]) -> None:
        """Check the bytes of a video in an array's file against the checksum beside them and the digest in the mark.

        Raises:
            CacheCorruptError: They are not what was written; the message names the video and the array.
        """
        if digest_of(self._decoded(slot, array, content)) != self.usable[slot].digests[array]:
            raise self._damaged(slot, array, "its digest differs from the one in the mark")

    def _decoded(self, slot: int, array: str, content: NDArray[np.uint8]) -> NDArray[Any]:
        row, spec = self.usable[slot], self._specs[array]
        try:
            filled_up = decode_video(spec, content)
        except ValueError as error:
            raise self._damaged(slot, array, str(error)) from error
        return filled_up[tuple(map(slice, spec.shape_of(row.extents)))]

    def file_of(self, array: str) -> str:
        """Return where an array's file lies in the cache."""
        return f"{data_folder(self.name)}/{data_file(self._specs[array])}"

    def _damaged(self, slot: int, array: str, why: str) -> CacheCorruptError:
        where, mark = (self._storage.describe(path(self.name)) for path in (data_folder, mark_file))
        video_id = self.usable[slot].video_id
        return CacheCorruptError(f"{where}: '{array}' of video '{video_id}' is damaged ({why}).", remedy(mark))


def remedy(mark: str) -> str:
    """Return what to do about a damaged shard, given the path of its mark."""
    return f"Remove {mark} and run 'diffvqa extract' to make this shard again."
