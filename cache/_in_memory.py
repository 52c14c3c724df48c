"""All the features of a cache in memory, where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from diffvqa.cache._errors import MemoryLimitError
from diffvqa.cache._layout import video_length
from diffvqa.cache._loaded import LoadedVideo, chosen_specs, load_video
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import CacheHeader


class FeaturesInMemory(Mapping[str, LoadedVideo]):
    """Videos by id, as :class:`FeatureCache` gives them, without reading anything any more.

    Attributes:
        header: Of the cache they come from.
    """

    def __init__(self, header: CacheHeader, videos: Mapping[str, LoadedVideo]) -> None:
        self.header = header
        self._videos = videos

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the videos, in the order asked for."""
        return tuple(self._videos)

    def __getitem__(self, video_id: str) -> LoadedVideo:
        return self._videos[video_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)


def bytes_in_memory(cache: FeatureCache, *, videos: int, arrays: Sequence[str] | None = None) -> int:
    """Return how many bytes some arrays of so many videos take up, all as large as the largest."""
    return videos * sum(map(video_length, chosen_specs(cache.header.arrays, arrays)))


def load_into_memory(
    cache: FeatureCache,
    *,
    memory: int,
    ids: Iterable[str] | None = None,
    arrays: Sequence[str] | None = None,
    threads: int = 1,
) -> FeaturesInMemory:
    """Read a cache into memory if it fits.

    Args:
        cache: Where from.
        memory: Most bytes that the features may take up.
        ids: Which videos; all with features when None.
        arrays: Names such as ``resize/latent``; all of the cache's when None.
        threads: How many read side by side.

    Raises:
        MemoryLimitError: They do not fit; found out before anything is read.
        CacheMissingError: A video has no features.
        CacheCorruptError: Stored bytes are not what was written.
        CacheUnreachableError: The storage cannot be read.
        UnknownArrayError: The cache has no array of that name.
    """
    wanted = cache.ids() if ids is None else tuple(dict.fromkeys(ids))
    needed = bytes_in_memory(cache, videos=len(wanted), arrays=arrays)
    if needed > memory:
        raise MemoryLimitError(
            f"The features of {len(wanted)} videos of {cache.url} take up to {needed} bytes, {memory} are allowed.",
            "Allow more, ask for fewer arrays, or stream them with FeatureStream.",
        )
    names = [spec.name for spec in chosen_specs(cache.header.arrays, arrays)]
    with ThreadPoolExecutor(threads, "diffvqa-load") as readers:
        videos = readers.map(lambda video_id: load_video(cache, cache[video_id].location, names), wanted)
        return FeaturesInMemory(cache.header, dict(zip(wanted, videos, strict=True)))
