"""What is exported from a cache, and how it gets to its place: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffvqa.cache._atomic import TEMPORARY_PREFIX, atomic_output, reporting_output_errors, synchronise_tree
from diffvqa.cache._errors import OutputError
from diffvqa.cache._layout import video_length
from diffvqa.cache._loaded import LoadedVideo, chosen_specs
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import ArraySpec, CacheHeader, VideoRow
from diffvqa.cache._storage import LocalStorage, Storage, open_storage
from diffvqa.cache._streaming import FeatureStream, in_disk_order

Progress = Callable[[int, int], None]

_VIDEOS_HELD = 8


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Labels:
    """What the people behind a data set say of its videos.

    Attributes:
        scores: Video id -> label, None where there is none; only these videos are exported.
        groups: Video id -> the content it shows; the id itself where it is absent.
        description: What the scores are.
    """

    scores: Mapping[str, float | None]
    groups: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def score(self, video_id: str) -> float:
        """Return a video's label, NaN where there is none."""
        score = self.scores.get(video_id)
        return float("nan") if score is None else score

    def group(self, video_id: str) -> str:
        """Return the content that a video shows."""
        return self.groups.get(video_id, video_id)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        videos: How many.
        size: Bytes.
    """

    videos: int
    size: int


class FeatureExport:
    """The videos of a cache on their way into another format, one after the other.

    Args:
        cache: Where from.
        labels: Of its videos.
        provenance: Anything else to be stored, as JSON.
        arrays: Names such as ``resize/latent``; all of the cache's when None.

    Attributes:
        ids: The videos with features and an entry in the labels, in the order in which they are written.
        specs: The arrays.

    Raises:
        UnknownArrayError: The cache has no array of that name.
    """

    def __init__(
        self,
        cache: FeatureCache,
        *,
        labels: Labels,
        provenance: Mapping[str, object],
        arrays: Sequence[str] | None = None,
    ) -> None:
        self.cache = cache
        self.labels = labels
        self.provenance = dict(provenance)
        self.specs: tuple[ArraySpec, ...] = chosen_specs(cache.header.arrays, arrays)
        self.ids = in_disk_order(cache, [video_id for video_id in cache.ids() if video_id in labels.scores])

    @property
    def header(self) -> CacheHeader:
        """The cache's header, naming only the arrays that are exported."""
        return self.cache.header.model_copy(update={"arrays": self.specs})

    def failures(self) -> tuple[VideoRow, ...]:
        """Return the rows of the videos that have an entry in the labels and no features."""
        return tuple(row for row in self.cache.failures() if row.video_id in self.labels.scores)

    def videos(self, on_progress: Progress = no_progress) -> Iterator[tuple[VideoRow, LoadedVideo]]:
        """Yield each video's row, which speaks of the exported arrays alone, and these.

        Raises:
            CacheCorruptError: A stored array is damaged.
            CacheUnreachableError: The storage cannot be read.
        """
        names = [spec.name for spec in self.specs]
        dimensions = {name for spec in self.specs for name in spec.dimensions}
        memory = _VIDEOS_HELD * sum(map(video_length, self.specs))
        stream = FeatureStream(self.cache, ids=self.ids, arrays=names, memory=memory)
        for number, video in enumerate(stream, 1):
            row = video.row
            digests = {name: row.digests[name] for name in names}
            extents = {name: extent for name, extent in row.extents.items() if name in dimensions}
            yield row.model_copy(update={"digests": digests, "extents": extents}), video
            on_progress(number, len(self.ids))


@contextlib.contextmanager
def output_file(out: Path | str) -> Iterator[Path]:
    """Give a local path to write to, whose content is at ``out`` when the block ends well, else nowhere.

    Args:
        out: A path, or a URL of anything that fsspec reaches; for a URL the file is made here first and then sent.

    Raises:
        OutputError: The place cannot be written to.
        CacheUnreachableError: Nothing here speaks the URL's protocol.
    """
    if not is_url(out):
        with reporting_output_errors(Path(out)), atomic_output(Path(out)) as here:
            yield here
        return
    folder, _, name = str(out).rpartition("/")
    storage = open_storage(folder)
    with tempfile.TemporaryDirectory(prefix="diffvqa-export-") as temporary:
        unfinished = Path(temporary) / name
        with reporting_output_errors(unfinished):
            yield unfinished
        storage.upload(unfinished, name)


@contextlib.contextmanager
def output_folder(out: Path | str, last_file: str) -> Iterator[Storage]:
    """Give a storage whose files are in the folder ``out`` when the block ends well.

    A local folder appears in one step. In an object store the files appear one by one: ``last_file`` says that all of
    them are there, and the block must write it last.

    Args:
        out: A path, or a URL of anything that fsspec reaches; what was exported there before is replaced.
        last_file: Name of a file that each such folder has.

    Raises:
        OutputError: The place cannot be written to, or holds something else.
        CacheUnreachableError: Nothing here speaks the URL's protocol.
    """
    place = open_storage(out)
    present = {listed.base for listed in place.entries()}
    if present and last_file not in present:
        raise OutputError(f"{place.describe()} is not empty and no earlier export.", "Choose another place with --out.")
    if is_url(out):
        for name in (last_file, *sorted(present)):
            place.delete(name)
        yield place
        return
    final = Path(out)
    unfinished, old = (final.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}" for _ in range(2))
    try:
        with reporting_output_errors(final):
            unfinished.mkdir(parents=True)
            yield LocalStorage(unfinished)
            synchronise_tree(unfinished)
            if final.exists():
                final.rename(old)
            unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def is_url(out: Path | str) -> bool:
    """Whether ``out`` is to be reached through fsspec."""
    return isinstance(out, str) and "://" in out
