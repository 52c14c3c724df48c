"""The work of an extraction on one unit: decode, compute, write the shard's data."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffvqa.pipeline._engines.interface import Place, WorkUnit

if TYPE_CHECKING:
    from diffvqa.cache._run_lock import Run
    from diffvqa.cache._schema import CacheHeader
    from diffvqa.cache._shards import ShardWriter, StagedShard
    from diffvqa.pipeline._config import Settings
    from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._extraction import Decoding
    from diffvqa.stages._view_batches import ExtractedVideo
    from diffvqa.stages._view_extractor import ViewExtractor

_GIVEN_UP = "it ended the process of the model each time"


class WorkStoppedError(Exception):
    """A unit was let go of, since nobody waits for it any more."""


@dataclass(frozen=True)
class ExtractionTask:
    """What a worker is to do, and where it writes; plain values.

    Attributes:
        settings: Recipe and runtime.
        location: Absolute path or URL of the cache.
        header: Of the cache.
        run: In whose name shards are written.
    """

    settings: Settings
    location: str
    header: CacheHeader
    run: Run

    @contextmanager
    def open(self, place: Place) -> Iterator[ExtractionWorker]:
        """Load the model.

        Raises:
            ModelFolderError: It cannot be loaded.
            FingerprintMismatchError: Here the same name leads to another model than where the run was begun.
        """
        from diffvqa.pipeline._waiting import wait_without_spinning

        wait_without_spinning()
        from diffvqa.cache._fingerprint import Fingerprint
        from diffvqa.cache._shards import ShardWriter
        from diffvqa.cache._storage import open_storage
        from diffvqa.pipeline._backbone import load_backbone
        from diffvqa.stages._backbones.registry import with_folders

        recipe = self.settings.extract
        if place.backbone is None:
            here = {"device": place.device, "threads": place.threads}
            runtime = self.settings.runtime.model_copy(update=here)
            backbone = load_backbone(with_folders(recipe, place.model_folders), runtime)
        else:
            backbone = place.backbone
        ways_out = "Install the same version of diffvqa on every machine."
        asked_for = Fingerprint(self.header.fingerprint)
        asked_for.require_equal(backbone.fingerprint, f"the model '{recipe.model}' of a worker", ways_out)
        writer = ShardWriter(open_storage(self.location), self.header, self.run)
        with place.decoding() as decoding:
            yield ExtractionWorker(backbone.extractor, recipe, decoding, writer, place)


class ExtractionWorker:
    """Does units; while one is computed, the next may be decoded and the one before written.

    Args:
        extractor: The model on its device; used for one unit at a time.
        recipe: Of the extraction.
        decoding: Decodes; used for one unit at a time until all its videos are on their way.
        writer: Of the cache.
        place: Is told of each video.
    """

    def __init__(
        self, extractor: ViewExtractor, recipe: ExtractRecipe, decoding: Decoding, writer: ShardWriter, place: Place
    ) -> None:
        self._extractor = extractor
        self._recipe = recipe
        self._decoding = decoding
        self._writer = writer
        self._on_video = place.on_video
        self._stopped = threading.Event()
        self._decodes = threading.Lock()
        self._computes = threading.Lock()

    def do(self, unit: WorkUnit) -> StagedShard:
        """Compute a unit and write its data.

        Raises:
            OutputError: The data cannot be written.
            CacheBusyError: Another run has taken over.
        """
        from diffvqa.cache._schema import SourceStamp
        from diffvqa.cache._source_files import is_url
        from diffvqa.pipeline._cache_rows import shard_entry
        from diffvqa.stages._decoding import FailedVideo
        from diffvqa.stages._failures import FailureReason

        # Taken before decoding: a file that changes meanwhile then differs from its stamp, and is done again.
        here = [video for video in unit.videos if not is_url(video.location)]
        stamps = {video.video_id: SourceStamp.of(video.location) for video in here}
        results = iter(self._extract([video for video in unit.videos if video.video_id not in unit.given_up]))
        entries = []
        for video in unit.videos:
            if video.video_id in unit.given_up:
                self._on_video(True)
                result: ExtractedVideo | FailedVideo = FailedVideo(video, FailureReason.CRASHED, _GIVEN_UP)
            else:
                result = next(results)
            entries.append(shard_entry(result, stamps))
        return self._writer.stage(entries, unit.number)

    def rehearse(self, video: VideoSource) -> None:
        """Do with one video all that :meth:`do` does with it, and keep nothing."""
        self._extract([video])

    def stop(self) -> None:
        """Let go of what is being done after the batch that the model is at."""
        self._stopped.set()

    def _extract(self, videos: Sequence[VideoSource]) -> list[ExtractedVideo | FailedVideo]:
        from diffvqa.stages._decoding import FailedVideo
        from diffvqa.stages._extraction import extract_unit

        if not videos:
            return []
        results = []
        with self._decoded(videos) as decoded, self._computes:
            for result in extract_unit(decoded, self._extractor, self._recipe):
                if self._stopped.is_set():
                    raise WorkStoppedError
                self._on_video(isinstance(result, FailedVideo))
                results.append(result)
        return results

    @contextmanager
    def _decoded(self, videos: Sequence[VideoSource]) -> Iterator[Iterator[DecodedVideo | FailedVideo]]:
        """Begin to decode as soon as no other unit has videos that are not yet on their way."""
        with _Turn(self._decodes) as turn:

            def on_their_way() -> Iterator[VideoSource]:
                yield from videos
                turn.end()

            decoded = iter(self._decoding.run(on_their_way()))
            first = next(decoded)
            yield _after(first, decoded)


class _Turn:
    """A lock that may be given back before its block ends."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> _Turn:
        self._lock.acquire()
        self._is_mine = True
        return self

    def end(self) -> None:
        if self._is_mine:
            self._is_mine = False
            self._lock.release()

    def __exit__(self, *_: object) -> None:
        self.end()


def _after(
    first: DecodedVideo | FailedVideo, others: Iterator[DecodedVideo | FailedVideo]
) -> Iterator[DecodedVideo | FailedVideo]:
    yield first
    yield from others
