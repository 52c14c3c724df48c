"""A video's features in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from diffvqa.cache._catalogue import Location
from diffvqa.cache._errors import UnknownArrayError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import ArraySpec, VideoRow


class LoadedVideo(Mapping[str, "NDArray[Any]"]):
    """One video's arrays by name, such as ``resize/latent``, all in memory.

    Shapes are (frames, ...) or (frames, crops, ...), with the video's own numbers of both.

    Attributes:
        row: What is known of the video.
    """

    def __init__(self, row: VideoRow, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.row = row
        self._arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def load_video(cache: FeatureCache, location: Location, names: Sequence[str]) -> LoadedVideo:
    """Read some arrays of a video with features.

    Args:
        cache: Where from.
        location: Of the video in the cache.
        names: Of the arrays.

    Raises:
        CacheCorruptError: Stored bytes are not what was written.
        CacheUnreachableError: The storage cannot be read.
    """
    shard = cache.shard(location.shard, location.video_id)
    return LoadedVideo(shard.usable[location.slot], {name: shard.read(location.slot, name) for name in names})


def chosen_specs(specs: Sequence[ArraySpec], names: Sequence[str] | None) -> tuple[ArraySpec, ...]:
    """Return the specifications of the arrays asked for, in the order of the cache; of all when ``names`` is None.

    Raises:
        UnknownArrayError: The cache has no array of that name, or none is asked for.
    """
    if names is None:
        return tuple(specs)
    known = [spec.name for spec in specs]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        what = f"There is no array '{unknown[0]}'." if unknown else "No array is asked for."
        raise UnknownArrayError(what, f"This cache has {', '.join(known)}.")
    return tuple(spec for spec in specs if spec.name in names)
