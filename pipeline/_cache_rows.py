"""What the verbs that fill a cache write into it: its header, and a row with arrays for every video."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from diffvqa.cache._errors import CacheUnreachableError
from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import SCHEMA_VERSION, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.pipeline._backbone import software_versions
from diffvqa.stages._decoding import FailedVideo

if TYPE_CHECKING:
    from diffvqa.pipeline._backbone import Backbone
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._view_batches import ExtractedVideo


def cache_header(recipe: ExtractRecipe, backbone: Backbone, fingerprint: Fingerprint | None = None) -> CacheHeader:
    """Return the header of a cache of the features that a backbone makes.

    Args:
        recipe: Of the extraction.
        backbone: As it was loaded for the recipe.
        fingerprint: Of the features; the backbone's own when None.
    """
    from diffvqa.stages._extraction import array_specs

    made_by = fingerprint or backbone.fingerprint
    return CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(made_by.fields),
        fingerprint_digest=made_by.digest,
        recipe=recipe.model_dump(),
        arrays=array_specs(recipe, backbone.extractor.backbone),
        software=software_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def shard_entry(result: ExtractedVideo | FailedVideo, stamps: Mapping[str, SourceStamp]) -> ShardEntry:
    """Return the row and the arrays of a video; reads its file once more, for the digest.

    Args:
        result: Its features, or why there are none.
        stamps: By video id, of the files of this machine as they were before they were decoded.
    """
    stamp = _stamp_of(result, stamps)
    if isinstance(result, FailedVideo):
        row = VideoRow(
            video_id=result.source.video_id,
            status="failed",
            reason=result.reason,
            detail=result.detail,
            source=stamp,
        )
        return ShardEntry(row, None)
    decoded = result.decoded
    row = VideoRow(
        video_id=decoded.source.video_id,
        status="ok",
        source=stamp,
        frame_indices=tuple(decoded.frame_indices.tolist()),
        timestamps=tuple(decoded.timestamps.tolist()),
        crop_positions=tuple((int(top), int(left)) for top, left in decoded.crop_positions),
        width=decoded.width,
        height=decoded.height,
        decoder=decoded.decoder,
        substitutions=decoded.substitutions,
        frame_rate=decoded.frame_rate,
        duration=decoded.duration,
        note=decoded.note,
    )
    return ShardEntry(row, result.arrays)


def _stamp_of(result: ExtractedVideo | FailedVideo, stamps: Mapping[str, SourceStamp]) -> SourceStamp:
    source = result.source if isinstance(result, FailedVideo) else result.decoded.source
    fetched = result.stamp if isinstance(result, FailedVideo) else result.decoded.stamp
    if fetched is not None:
        return fetched
    if source.video_id in stamps:
        return stamps[source.video_id].with_content()
    try:  # given up before it could be fetched, or with who fetched it
        return SourceStamp.of(source.location)
    except CacheUnreachableError:
        return SourceStamp.absent(source.location)
