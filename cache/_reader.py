"""Reading a cache: which videos it holds, and their arrays, each checked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from diffvqa.cache._catalogue import Catalogue, Location
from diffvqa.cache._errors import CacheCorruptError, CacheMissingError
from diffvqa.cache._schema import ArraySpec, CacheHeader, VideoRow, read_header
from diffvqa.cache._shard_reader import ShardReader, remedy
from diffvqa.cache._shards import mark_file
from diffvqa.cache._storage import open_storage

_OPEN_SHARDS = 8


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds, in figures.

    Attributes:
        location: Its path or URL.
        header: What is true of all of it.
        videos: How many have features.
        frames: How many frames these have together.
        failures: How many videos failed, by reason, most frequent first.
        shards: How many shards there are.
        size: Bytes of all shards and their marks.
        arrays: Its arrays; the first of their sizes is the most frames that a video has.
        damaged: Name of a shard whose mark cannot be read -> why.
    """

    location: str
    header: CacheHeader
    videos: int
    frames: int
    failures: Mapping[str, int]
    shards: int
    size: int
    arrays: tuple[ArraySpec, ...]
    damaged: Mapping[str, str]


class VideoArrays(Mapping[str, "NDArray[Any]"]):
    """One video's arrays by name, such as ``resize/latent``; each is read and checked when it is asked for.

    Shapes are (frames, ...) or (frames, crops, ...), with the video's own numbers of both.
    """

    def __init__(self, cache: FeatureCache, location: Location) -> None:
        self._cache = cache
        self._location = location

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self._location

    @property
    def row(self) -> VideoRow:
        """What is known of the video.

        Raises:
            CacheCorruptError: The mark of its shard is damaged; the message names the video.
        """
        return self._cache.row(self._location.video_id)

    def __iter__(self) -> Iterator[str]:
        return (spec.name for spec in self._cache.header.arrays)

    def __len__(self) -> int:
        return len(self._cache.header.arrays)

    def __contains__(self, name: object) -> bool:
        # The inherited one would read the array.
        return any(spec.name == name for spec in self._cache.header.arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(name)
        return self._cache.shard(self._location.shard, self._location.video_id, name).read(self._location.slot, name)


class FeatureCache:
    """A cache, for reading, in one or several threads; in another process it opens itself anew.

    Args:
        location: Its folder, or its URL such as ``s3://bucket/features``.

    Attributes:
        header: What is true of the whole cache.
        storage: Where it lies.

    Raises:
        CacheMissingError: There is no cache.
        CacheCorruptError: Its header is damaged. A damaged shard is an error only when it is read.
        SchemaTooNewError: It was written by newer software.
        CacheUnreachableError: The place cannot be read.
    """

    def __init__(self, location: Path | str) -> None:
        self._location = location
        self.storage = open_storage(location)
        self.header: CacheHeader = read_header(self.storage)
        self._catalogue = Catalogue.load(self.storage, self.header.fingerprint_digest)
        self._opened: OrderedDict[str, ShardReader] = OrderedDict()

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[Path | str]]:
        # By a path or URL that means the same in another working directory.
        local = isinstance(self._location, Path) or "://" not in self._location
        return type(self), (Path(self._location).absolute() if local else self._location,)

    @property
    def url(self) -> str:
        """Its path or URL."""
        return self.storage.describe()

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the videos that have features, in the order of writing."""
        return self._catalogue.ids(ok=True)

    def failures(self) -> tuple[VideoRow, ...]:
        """Return the rows of the videos that have none."""
        return tuple(map(self._catalogue.failed_row, self._catalogue.ids(ok=False)))

    def info(self) -> CacheInfo:
        """Return what the cache holds, in figures; no array is read."""
        videos, frames, failures = self._catalogue.count()
        shards = self._catalogue.shards()
        return CacheInfo(
            location=self.url,
            header=self.header,
            videos=videos,
            frames=frames,
            failures=failures,
            shards=len(shards),
            size=sum(shards.values()),
            arrays=self.header.arrays,
            damaged=dict(self._catalogue.damaged),
        )

    def shards(self) -> tuple[str, ...]:
        """Return the names of its shards, in the order of writing."""
        return tuple(self._catalogue.shards())

    def __contains__(self, video_id: str) -> bool:
        return self._catalogue.is_ok(video_id)

    def __len__(self) -> int:
        """Return how many videos have features."""
        return len(self.ids())

    def __getitem__(self, video_id: str) -> VideoArrays:
        """Return the arrays of a video.

        Raises:
            CacheMissingError: The video has no features; the message says why.
            CacheCorruptError: It is not in the catalogue, and some mark that may name it is damaged.
        """
        location = self.locate(video_id)
        if not location.ok:
            row = self.row(video_id)
            raise CacheMissingError(f"'{video_id}' could not be used: {row.reason}. {row.detail}")
        return VideoArrays(self, location)

    def locate(self, video_id: str) -> Location:
        """Return where the newest row of a video lies.

        Raises:
            CacheMissingError: The cache holds no such video.
            CacheCorruptError: It holds none in the marks that can be read, but not all can.
        """
        location = self._catalogue.locate(video_id)
        if location is not None:
            return location
        damaged = self._catalogue.damaged
        if damaged:
            mark = self.storage.describe(mark_file(next(iter(damaged))))
            raise CacheCorruptError(
                f"{self.url}: no array of video '{video_id}' is found, and {mark}, which may name it, is damaged.",
                remedy(mark),
            )
        raise CacheMissingError(f"{self.url} holds no video '{video_id}'.", "Run 'diffvqa extract'.")

    def row(self, video_id: str) -> VideoRow:
        """Return what is known of a video, usable or not.

        Raises:
            CacheMissingError: The cache holds no such video.
            CacheCorruptError: The mark of its shard is damaged; the message names the video.
        """
        location = self.locate(video_id)
        return self.shard(location.shard, video_id).mark.rows[location.entry]

    def shard(self, name: str, video_id: str = "", array: str = "") -> ShardReader:
        """Return the reader of a shard; a few are kept open.

        Args:
            name: The shard's.
            video_id: For whose sake it is opened; named in the message of an error.
            array: Likewise.

        Raises:
            CacheCorruptError: Its mark is damaged.
        """
        reader = self._opened.pop(name, None)
        if reader is None:
            try:
                reader = ShardReader(self.storage, name, self.header.arrays)
            except CacheCorruptError as error:
                if not video_id:
                    raise
                what = f"'{array}' of video '{video_id}'" if array else f"the row of video '{video_id}'"
                raise CacheCorruptError(f"{what} cannot be read: {error.what}", error.hint) from error
        self._opened[name] = reader
        if len(self._opened) > _OPEN_SHARDS:
            self._opened.popitem(last=False)
        return reader
