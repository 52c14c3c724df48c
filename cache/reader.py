"""Reading a cache: which videos it holds, and their arrays, each checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache.errors import CacheCorruptError, CacheMissingError
from diffvqa.cache.layout import data_file, decode_video, video_length
from diffvqa.cache.schema import CacheHeader, ShardMark, VideoRow, parse_stored, read_header
from diffvqa.cache.shards import DATA_SUFFIX, MARK_SUFFIX, SHARDS_FOLDER


@dataclass(frozen=True)
class _Location:
    row: VideoRow
    shard: Path
    index: int


class Catalogue:
    """Every video of a cache by id: the newest row of each, and where its arrays lie.

    Args:
        directory: The cache.

    Raises:
        CacheCorruptError: A mark is damaged.
        SchemaTooNewError: A mark was written by newer software.
    """

    def __init__(self, directory: Path) -> None:
        self._locations: dict[str, _Location] = {}
        marks = sorted((directory / SHARDS_FOLDER).glob(f"[0-9]*{MARK_SUFFIX}"), key=_shard_number)
        self.next_shard_number = 1 + max(map(_shard_number, marks), default=-1)
        for path in marks:
            index = 0
            for row in parse_stored(path, ShardMark).rows:
                self._locations[row.video_id] = _Location(row, path.with_suffix(DATA_SUFFIX), index)
                index += row.status == "ok"

    def rows(self) -> tuple[VideoRow, ...]:
        """Return the newest row of every video, in the order of writing."""
        return tuple(location.row for location in self._locations.values())

    def locate(self, video_id: str) -> _Location | None:
        """Return where a video's newest row lies, or None when there is none."""
        return self._locations.get(video_id)


def _shard_number(mark: Path) -> int:
    return int(mark.name.split("-")[0])


class VideoArrays(Mapping[str, "NDArray[Any]"]):
    """One video's arrays by name, such as ``resize/latent``; each is read and checked when it is asked for.

    Shapes are (frames, ...), with the video's own number of frames.
    """

    def __init__(self, cache: FeatureCache, location: _Location) -> None:
        self._cache = cache
        self._location = location

    @property
    def row(self) -> VideoRow:
        """What is known of the video."""
        return self._location.row

    def __iter__(self) -> Iterator[str]:
        return iter(self._location.row.digests)

    def __len__(self) -> int:
        return len(self._location.row.digests)

    def __contains__(self, name: object) -> bool:
        # The inherited one would read the array.
        return name in self._location.row.digests

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._location.row.digests:
            raise KeyError(name)
        return self._cache._read(self._location, name)


class FeatureCache:
    """A cache on disk, for reading.

    Args:
        directory: The cache.

    Raises:
        CacheMissingError: There is no cache.
        CacheCorruptError: Its header or a mark is damaged.
        SchemaTooNewError: It was written by newer software.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.header: CacheHeader = read_header(self.directory)
        self._catalogue = Catalogue(self.directory)
        self._specs = {spec.name: spec for spec in self.header.arrays}

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the videos that have features, in the order of writing."""
        return tuple(row.video_id for row in self._catalogue.rows() if row.status == "ok")

    def failures(self) -> tuple[VideoRow, ...]:
        """Return the rows of the videos that have none."""
        return tuple(row for row in self._catalogue.rows() if row.status == "failed")

    def __contains__(self, video_id: str) -> bool:
        location = self._catalogue.locate(video_id)
        return location is not None and location.row.status == "ok"

    def __getitem__(self, video_id: str) -> VideoArrays:
        """Return the arrays of a video.

        Raises:
            CacheMissingError: The video has no features; the message says why.
        """
        location = self._catalogue.locate(video_id)
        if location is None:
            raise CacheMissingError(f"{self.directory} holds no video '{video_id}'.", "Run 'diffvqa extract'.")
        if location.row.status != "ok":
            raise CacheMissingError(f"'{video_id}' could not be used: {location.row.reason}. {location.row.detail}")
        return VideoArrays(self, location)

    def _read(self, location: _Location, name: str) -> NDArray[Any]:
        """Read one array; its checksum is looked at, not its digest, which takes longer than the reading itself."""
        spec = self._specs[name]
        content = np.empty(video_length(spec), np.uint8)
        try:
            with (location.shard / data_file(spec)).open("rb", buffering=0) as file:
                file.seek(location.index * len(content))
                video = decode_video(spec, content[: file.readinto(content.data)])
        except (OSError, ValueError) as error:
            raise self._damaged(location, name, str(error)) from error
        return video[: len(location.row.frame_indices)]

    def _damaged(self, location: _Location, name: str, why: str) -> CacheCorruptError:
        return CacheCorruptError(
            f"{location.shard}: '{name}' of video '{location.row.video_id}' is damaged ({why}).",
            f"Remove {location.shard.with_suffix(MARK_SUFFIX)} and run 'diffvqa extract' to make this shard again.",
        )
