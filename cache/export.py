"""Features in one file, for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from diffvqa.cache.atomic import atomic_output, reporting_output_errors
from diffvqa.cache.reader import FeatureCache

H5_FORMAT = 1


def export_h5(
    cache: FeatureCache,
    out: Path,
    *,
    scores: Mapping[str, float | None],
    groups: Mapping[str, str],
    label: str,
    provenance: Mapping[str, object],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write a cache's features, ids and labels to one HDF5 file, a video at a time.

    The file holds ``video_id`` (V,), ``score`` (V,) float64 (NaN where unlabelled), ``group`` (V,),
    ``frame_offset`` (V + 1,) int64, ``timestamp`` (sum of frames,) float64 in seconds, and per array
    ``features/<branch>/<name>`` (sum of frames, ...): the frames of video ``i`` are rows
    ``frame_offset[i]:frame_offset[i + 1]``. The cache's header and ``provenance`` are JSON in the attributes.

    Args:
        cache: Where from.
        out: The file; it appears under this name only when it is complete.
        scores: Video id -> label, None where there is none.
        groups: Video id -> content group.
        label: What the scores are; stands in the attributes of ``score``.
        provenance: Anything else to be stored, as JSON.
        on_progress: Told how many arrays of how many are written.

    Returns:
        How many videos were written.

    Raises:
        OutputError: The file cannot be written.
        CacheCorruptError: A stored array is damaged.
    """
    ids = [video_id for video_id in cache.ids() if video_id in scores]
    frames = [len(cache[video_id].row.frame_indices) for video_id in ids]
    offsets = np.concatenate([[0], np.cumsum(frames)]).astype(np.int64)
    with reporting_output_errors(out), atomic_output(out) as unfinished, h5py.File(unfinished, "w") as file:
        file.attrs["format"] = H5_FORMAT
        file.attrs["cache"] = cache.header.model_dump_json()
        file.attrs["provenance"] = json.dumps(dict(provenance))
        _write_strings(file, "video_id", ids)
        _write_strings(file, "group", [groups.get(video_id, video_id) for video_id in ids])
        values = [scores[video_id] for video_id in ids]
        file["score"] = np.array([np.nan if value is None else value for value in values], np.float64)
        file["score"].attrs["label"] = label
        file["frame_offset"] = offsets
        timestamps = [cache[video_id].row.timestamps for video_id in ids]
        file["timestamp"] = np.concatenate([np.empty(0), *map(np.array, timestamps)]).astype(np.float64)
        for number, spec in enumerate(cache.header.arrays):
            data = file.create_dataset(
                f"features/{spec.name}",
                shape=(int(offsets[-1]), *spec.shape[1:]),
                dtype=spec.dtype,
                chunks=(1, *spec.shape[1:]),
                fletcher32=True,
            )
            data.attrs["dimensions"] = list(spec.dimensions)
            data.attrs["description"] = spec.description
            for index, video_id in enumerate(ids):
                data[offsets[index] : offsets[index + 1]] = cache[video_id][spec.name]
                on_progress(number * len(ids) + index + 1, len(ids) * len(cache.header.arrays))
    return len(ids)


def _write_strings(file: h5py.File, name: str, values: Sequence[str]) -> None:
    file.create_dataset(name, data=np.array(values, dtype=object), dtype=h5py.string_dtype())
