"""Features in one HDF5 file, from which a cache can be made again bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from diffvqa.cache._export import Exported, FeatureExport, Progress, no_progress, output_file
from diffvqa.cache._schema import ArraySpec, VideoRow

H5_FORMAT = 1
_METADATA_HELD = 2**20
_TEXTS_AT_ONCE = 512


def export_h5(export: FeatureExport, out: Path | str, on_progress: Progress = no_progress) -> Exported:
    """Write features, ids and labels to one HDF5 file, a video at a time.

    The file holds ``video_id`` (V,), ``score`` (V,) float64 (NaN where unlabelled), ``group`` (V,),
    ``frame_offset`` (V + 1,) int64, ``timestamp`` (sum of frames,) float64 in seconds, and per array
    ``features/<branch>/<name>`` (sum of frames, ...): the frames of video ``i`` are rows
    ``frame_offset[i]:frame_offset[i + 1]``. Arrays with crops have as many as the video with the most; ``crops`` (V,)
    int32 says how many are the video's own, the rest is zero. ``row`` (V,) and ``failure`` hold as JSON all that the
    cache knows of each video with features and without. The cache's header and the provenance are JSON in the
    attributes.

    Args:
        export: What is written.
        out: The file's path or URL; it is there only when it is complete.
        on_progress: Told how many videos of how many are written.

    Raises:
        OutputError: The file cannot be written.
        CacheCorruptError: A stored array is damaged.
        CacheUnreachableError: The cache cannot be read, or nothing here speaks the URL's protocol.
    """
    with output_file(out) as unfinished:
        # Every chunk is written whole: a cache of chunks would only take memory.
        with h5py.File(unfinished, "w", libver=("v110", "v110"), rdcc_nbytes=0) as file:
            _bound_metadata(file)
            file.attrs["format"] = H5_FORMAT
            file.attrs["cache"] = export.header.model_dump_json()
            file.attrs["provenance"] = json.dumps(export.provenance)
            _fill(file, export, on_progress)
        size = unfinished.stat().st_size
    return Exported(len(export.ids), size)


def _bound_metadata(file: h5py.File) -> None:
    """Keep little of the file's own index in memory: by default it may grow to 32 MiB."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.min_size = config.initial_size = config.max_size = _METADATA_HELD
    file.id.set_mdc_config(config)


def _fill(file: h5py.File, export: FeatureExport, on_progress: Progress) -> None:
    ids, labels = export.ids, export.labels
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([export.cache.locate(video_id).frames for video_id in ids], out=offsets[1:])
    for name, text_of in (("video_id", str), ("group", labels.group)):
        file.create_dataset(name, len(ids), h5py.string_dtype())
        for first in range(0, len(ids), _TEXTS_AT_ONCE):
            piece = [text_of(video_id) for video_id in ids[first : first + _TEXTS_AT_ONCE]]
            file[name][first : first + len(piece)] = np.array(piece, dtype=object)
    file["score"] = np.fromiter((labels.score(video_id) for video_id in ids), np.float64, len(ids))
    file["score"].attrs["label"] = labels.description
    file["frame_offset"] = offsets
    file.create_dataset("timestamp", int(offsets[-1]), np.float64)
    file.create_dataset("crops", len(ids), np.int32)
    file.create_dataset("row", len(ids), h5py.string_dtype())
    features = {spec.name: _create_features(file, spec, int(offsets[-1])) for spec in export.specs}
    for number, (row, video) in enumerate(export.videos(on_progress)):
        begin, end = offsets[number : number + 2]
        file["row"][number] = row.model_dump_json()
        file["crops"][number] = row.extents.get("crop", 0)
        file["timestamp"][begin:end] = row.timestamps
        for name, data in features.items():
            data[(slice(begin, end), *map(slice, video[name].shape[1:]))] = video[name]
    _write_failures(file, export.failures())


def _create_features(file: h5py.File, spec: ArraySpec, frames: int) -> h5py.Dataset:
    data = file.create_dataset(
        f"features/{spec.name}",
        shape=(frames, *spec.shape[1:]),
        dtype=spec.dtype,
        chunks=(1, *spec.shape[1:]) if frames else None,
        fletcher32=frames > 0,
    )
    data.attrs["dimensions"] = list(spec.dimensions)
    for name, value in spec.attributes().items():
        if value is not None:
            data.attrs[name] = json.dumps(value) if isinstance(value, dict) else value
    return data


def _write_failures(file: h5py.File, failures: tuple[VideoRow, ...]) -> None:
    rows = [row.model_dump_json() for row in failures]
    file.create_dataset("failure", data=np.array(rows, dtype=object), dtype=h5py.string_dtype())
