"""Features pooled to one vector per video in one Parquet file, for pandas and scikit-learn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diffvqa.cache._export import Exported, FeatureExport, Progress, no_progress, output_file
from diffvqa.cache._schema import ArraySpec

_CHANNEL_DIMENSIONS = ("channel", "rgb")
_STATISTICS = ("mean", "std")
_GROUP_LINES = 512
_ID_COLUMNS = (("video_id", pa.string()), ("score", pa.float64()), ("group", pa.string()), ("frames", pa.int32()))
_IdValues = tuple[str, float | None, str, int]


def export_parquet(export: FeatureExport, out: Path | str, on_progress: Progress = no_progress) -> Exported:
    """Write a table with one line per video: ids, labels, and its features pooled over frames, crops and places.

    Columns are ``video_id``, ``score`` (null where unlabelled), ``group``, ``frames``, and for every channel of every
    array its mean and its standard deviation (population) over all else, such as ``resize/latent/mean/07`` and
    ``resize/latent/std/07``, summed up in float64 and kept as float32. The key ``diffvqa`` of the file's metadata holds
    as JSON the cache's header, the label's description and the provenance.

    Args:
        export: What is written.
        out: The file's path or URL; it is there only when it is complete.
        on_progress: Told how many videos of how many are written.

    Raises:
        OutputError: The file cannot be written.
        CacheCorruptError: A stored array is damaged.
        CacheUnreachableError: The cache cannot be read, or nothing here speaks the URL's protocol.
    """
    about = {
        "cache": export.header.model_dump(mode="json"),
        "label": export.labels.description,
        "provenance": export.provenance,
    }
    pooled = [(name, pa.float32()) for spec in export.specs for name in pooled_names(spec)]
    schema = pa.schema([*_ID_COLUMNS, *pooled], {"diffvqa": json.dumps(about)})
    lines = _lines(export, on_progress)
    with output_file(out) as unfinished:
        with pq.ParquetWriter(
            unfinished, schema, use_dictionary=["group"], memory_pool=pa.system_memory_pool()
        ) as writer:
            while group := list(islice(lines, _GROUP_LINES)):
                ids, vectors = zip(*group, strict=True)
                columns = [
                    pa.array(column, kind)
                    for column, (_, kind) in zip(zip(*ids, strict=True), _ID_COLUMNS, strict=True)
                ]
                columns += [pa.array(column) for column in np.stack(vectors, axis=1)]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        size = unfinished.stat().st_size
    return Exported(len(export.ids), size)


def pooled_names(spec: ArraySpec) -> list[str]:
    """Return the names of the columns that an array is pooled to."""
    axis = _channel_axis(spec)
    channels = 1 if axis is None else spec.shape[axis]
    width = len(str(channels - 1))
    return [f"{spec.name}/{statistic}/{channel:0{width}}" for statistic in _STATISTICS for channel in range(channels)]


def pool(spec: ArraySpec, array: NDArray[Any]) -> NDArray[np.float32]:
    """Return mean and standard deviation of each channel of a video's array over everything else.

    Args:
        spec: Of the array.
        array: (frames, ...), real frames and crops only.

    Returns:
        (2 C,): the means, then the standard deviations; C is 1 for an array without channels.
    """
    axis = _channel_axis(spec)
    before, channels = (0, 1) if axis is None else (axis, array.shape[axis])
    values = array.astype(np.float32).reshape(math.prod(array.shape[:before]), channels, -1)
    mean = values.mean((0, 2), dtype=np.float64)
    values -= mean[:, None]
    std = np.sqrt(np.square(values, out=values).mean((0, 2), dtype=np.float64))
    return np.concatenate([mean, std]).astype(np.float32)


def _channel_axis(spec: ArraySpec) -> int | None:
    return next((axis for axis, name in enumerate(spec.dimensions) if name in _CHANNEL_DIMENSIONS), None)


def _lines(export: FeatureExport, on_progress: Progress) -> Iterator[tuple[_IdValues, NDArray[np.float32]]]:
    for row, video in export.videos(on_progress):
        score, group = export.labels.scores[row.video_id], export.labels.group(row.video_id)
        pooled = [pool(spec, video[spec.name]) for spec in export.specs]
        yield (row.video_id, score, group, row.extents["frame"]), np.concatenate(pooled)
