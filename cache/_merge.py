"""Joining caches of the same features: their shards are copied as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.cache._errors import CacheCorruptError
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import parse_mark, require_same_features
from diffvqa.cache._shards import data_folder, list_marks, mark_file, publish_mark, shard_name, unique_part
from diffvqa.cache._storage import Storage
from diffvqa.cache._writer import CacheWriter

_WAYS_OUT = "Only caches of the same features can be joined."


@dataclass(frozen=True)
class MergeSummary:
    """What a merge did.

    Attributes:
        location: The joined cache.
        copied: Shards copied now.
        there_before: Shards of the sources that had been copied already.
        videos: Videos with features in the joined cache.
        repeated: Ids of the videos with features in more than one source; the last source's count.
    """

    location: str
    copied: int
    there_before: int
    videos: int
    repeated: tuple[str, ...]


def merge(
    sources: Sequence[Path | str],
    target: Path | str,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> MergeSummary:
    """Copy the shards of ``sources`` into the cache at ``target``; what was copied before is not copied again.

    Of a video that several sources have, the last source's features count; its features count before a failure
    elsewhere on the same file, and before a file that was missing elsewhere.

    Args:
        sources: Folders or URLs of caches with the same fingerprint; at least one.
        target: Folder or URL of the joined cache; made if absent, added to if it is there.
        on_progress: Told how many shards of how many are copied.

    Raises:
        CacheMissingError: A source is no cache.
        FingerprintMismatchError: The features differ; nothing was copied.
        CacheCorruptError: A source is damaged; what was copied before stays.
        CacheBusyError: Another process is writing to the target.
        OutputError: The target cannot be written to.
    """
    opened = [FeatureCache(source) for source in sources]
    for cache in opened[1:]:
        require_same_features(
            opened[0].header, cache.header, cache.url, "Only caches of the same features can be joined."
        )
    shards = [(cache.storage, name) for cache in opened for name in list_marks(cache.storage)]
    with CacheWriter(target, opened[0].header, shard_videos=1) as writer:
        there = {unique_part(name) for name in list_marks(writer.storage)}
        copied = 0
        for number, (storage, name) in enumerate(shards):
            if unique_part(name) not in there:
                _copy_shard(storage, name, writer, number)
                copied += 1
            on_progress(number + 1, len(shards))
    joined = FeatureCache(target)
    return MergeSummary(joined.url, copied, len(shards) - copied, len(joined.ids()), _repeated(opened))


def _copy_shard(source: Storage, name: str, writer: CacheWriter, number: int) -> None:
    """Copy a shard under a new number; its bytes are checked on the way and stay what they are."""
    sealed = source.read(mark_file(name))
    mark = parse_mark(sealed, source.describe(mark_file(name)))
    new_name = shard_name(writer.run.number, number, unique_part(name))
    with writer.storage.new_folder(data_folder(new_name)) as folder:
        for path, stored in mark.files.items():
            file = f"{data_folder(name)}/{path}"
            content = source.read(file)
            if hashlib.sha256(content).hexdigest() != stored.sha256:
                raise CacheCorruptError(
                    f"{source.describe(file)} is damaged: its bytes do not match its digest.",
                    "Run 'diffvqa cache verify' to see which videos it holds.",
                )
            folder.write(path, content)
    publish_mark(writer.storage, writer.run, new_name, sealed)


def _repeated(caches: Sequence[FeatureCache]) -> tuple[str, ...]:
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for cache in caches:
        ids = cache.ids()
        repeated.update(dict.fromkeys(video_id for video_id in ids if video_id in seen))
        seen.update(ids)
    return tuple(repeated)
