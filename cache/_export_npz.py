"""Features in one NPZ file per video, for programs that read NumPy's format."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np

from diffvqa.cache._export import Exported, FeatureExport, Progress, no_progress, output_folder
from diffvqa.cache._loaded import LoadedVideo
from diffvqa.cache._schema import VideoRow

INDEX_FILE = "index.csv"
_COLUMNS = ("video_id", "file", "score", "group", "frames")
_LONGEST_NAME = 200


def export_npz(export: FeatureExport, out: Path | str, on_progress: Progress = no_progress) -> Exported:
    """Write a folder with one NPZ file per video and ``index.csv``, which says what lies in which file.

    A file holds each array under its name, such as ``resize/latent`` (frames, ...), and beside them ``video_id``,
    ``score`` (float64, NaN where unlabelled), ``label``, ``group``, ``timestamp`` (frames,) float64 in seconds, and as
    JSON ``row``, ``cache`` and ``provenance``: what is known of the video, the cache's header and where all this comes
    from. A file is named after the video's id, percent-encoded, or cut short and made unique by a digest where that is
    too long for a file name. Nothing is pickled: ``numpy.load`` opens it as it is.

    Args:
        export: What is written.
        out: The folder's path or URL; an earlier export there is replaced. A local folder is there only when it is
            complete; in an object store it is complete when ``index.csv`` is there.
        on_progress: Told how many videos of how many are written.

    Raises:
        OutputError: The folder cannot be written, or holds something else.
        CacheCorruptError: A stored array is damaged.
        CacheUnreachableError: The cache cannot be read, or nothing here speaks the URL's protocol.
    """
    index = io.StringIO()
    lines = csv.writer(index, lineterminator="\n")
    lines.writerow(_COLUMNS)
    size = 0
    with output_folder(out, last_file=INDEX_FILE) as folder:
        for row, video in export.videos(on_progress):
            name, content = _file_name(row.video_id), _content(export, row, video)
            folder.write(name, content)
            size += len(content)
            score, group = export.labels.scores[row.video_id], export.labels.group(row.video_id)
            lines.writerow([row.video_id, name, "" if score is None else repr(score), group, row.extents["frame"]])
        table = index.getvalue().encode()
        folder.write(INDEX_FILE, table)
    return Exported(len(export.ids), size + len(table))


def _content(export: FeatureExport, row: VideoRow, video: LoadedVideo) -> bytes:
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        **dict(video),
        video_id=row.video_id,
        score=np.float64(export.labels.score(row.video_id)),
        label=export.labels.description,
        group=export.labels.group(row.video_id),
        timestamp=np.array(row.timestamps, np.float64),
        row=row.model_dump_json(),
        cache=export.header.model_dump_json(),
        provenance=json.dumps(export.provenance),
    )
    return content.getvalue()


def _file_name(video_id: str) -> str:
    name = quote(video_id, safe=" ")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(video_id.encode()).hexdigest()[:16]}"
    return f"{name}.npz"
