"""Scores with a cache beside them: what is there already is not extracted again, and what is extracted is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._schema import SourceStamp
from diffvqa.cache._source_files import is_url
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._cache_rows import cache_header, shard_entry
from diffvqa.pipeline._scored_video import ScoredVideo
from diffvqa.pipeline._scorer import Scorer


def score_and_keep(
    scorer: Scorer,
    videos: Sequence[Path | str],
    location: str,
    *,
    shard_videos: int,
    scored_before: Mapping[Path | str, ScoredVideo],
) -> Iterator[ScoredVideo]:
    """Yield the score or the failure of each video, in the order given, and keep the features.

    Their ids in the cache are the paths as given. The cache is one of its own: features for scoring are seeded alike
    for all videos, those of a data set by the video's id, and their fingerprints say so.

    Args:
        scorer: The trained model.
        videos: Each once.
        location: Of the cache, a folder or URL; made if absent.
        shard_videos: Videos per shard.
        scored_before: Whose scores are known; their features are kept all the same.

    Raises:
        CacheError: The cache is busy, damaged, or holds other features.
        OutputError: It cannot be written.
    """
    fingerprint = Fingerprint({**scorer.fingerprint.fields, "seeded_by": "the recipe alone"})
    header = cache_header(scorer.recipe, scorer.backbone, fingerprint)
    with CacheWriter(location, header, shard_videos=shard_videos) as writer:
        plan = writer.plan((str(path), path) for path in videos)
        kept, pending = FeatureCache(location), set(plan.pending)
        failed = {row.video_id: row for row in plan.failed_before}
        here = [path for path in videos if not is_url(path)]
        stamps = {str(path): SourceStamp.of(path) for path in here if str(path) in pending}
        extracted = scorer.extract([path for path in videos if str(path) in pending])
        for path in videos:
            video_id = str(path)
            result = next(extracted) if video_id in pending else None
            if result is not None:
                writer.add(shard_entry(result, stamps))
            if path in scored_before:
                yield scored_before[path]
            elif result is not None:
                yield scorer.score_extracted(result)
            elif video_id in failed:
                yield ScoredVideo(path, None, None, failed[video_id].reason, failed[video_id].detail)
            else:
                row = kept[video_id].row
                yield scorer.score_features(path, kept[video_id], row.frame_indices, row.timestamps)
