"""The recipe ``csv``: videos below a directory, scores from a CSV file with a header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffvqa.pipeline.csv_table import CsvRow, CsvTable, parse_score, read_csv_table
from diffvqa.pipeline.datasets.folder import find_videos
from diffvqa.pipeline.datasets.recipe import (
    ColumnNames,
    OnProgress,
    PreparedDataset,
    PrepareRequest,
    Progress,
    Recipe,
)
from diffvqa.pipeline.errors import DatasetError
from diffvqa.pipeline.manifest import Label, Manifest, ManifestRow, MatchReport

_DELIMITERS = ",;\t"
_NAMES_OF_A_MOS = frozenset({"mos", "score"})
_EXAMPLES = 3


def prepare_csv(request: PrepareRequest, on_progress: OnProgress) -> PreparedDataset:
    """Join the labels of ``request.labels`` to the videos below ``request.videos``, by name.

    A label names a video by its path from the directory, by its file name, or by either without the extension. The
    video's id is its path from the directory. A label whose video is not there stays in the manifest with the path
    where the video was expected; a video without a label does not come into it. Both are in the report.

    The scores count as MOS, unless their column was given another name: then they are called what the column is.

    Raises:
        DatasetError: A column is missing, a score is not a finite number, a label fits several videos, a video is
            labelled twice, or nothing fits at all.
    """
    directory = request.require_videos()
    table = read_csv_table(request.require_labels(), delimiters=_DELIMITERS)
    catalogue = VideoCatalogue.of(directory, find_videos(directory))
    labels = _read_labels(table, request.columns)

    rows: dict[str, ManifestRow] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    for label in labels:
        found = catalogue.find(label.name, where=f"{table.path}, line {label.line}")
        video_id = found or label.name
        if video_id in rows:
            raise DatasetError(
                f"{table.path}: '{video_id}' is labelled twice, on lines {lines[video_id]} and {label.line}.",
                "Remove one of them.",
            )
        if found is None:
            missing.append(label.name)
        path = directory / found if found else _expected_path(directory, label.name)
        rows[video_id] = ManifestRow(video_id, path, label.score, label.group or video_id)
        lines[video_id] = label.line
        on_progress(Progress(len(rows), len(labels), video_id))
    if len(missing) == len(labels):
        raise _nothing_matched(table, missing, catalogue)

    report = MatchReport(
        matched=len(labels) - len(missing),
        labels_without_video=tuple(missing),
        videos_without_label=tuple(video_id for video_id in catalogue.ids if video_id not in rows),
    )
    return PreparedDataset(Manifest(request.name, tuple(rows.values()), _name_label(request.columns)), report)


RECIPE = Recipe(
    name="csv",
    summary="Videos below a directory, scores from a CSV file.",
    needs_videos=True,
    needs_labels=True,
    prepare=prepare_csv,
)


@dataclass(frozen=True)
class VideoCatalogue:
    """The videos below a directory, by every name a label may use for them.

    Attributes:
        directory: The directory.
        ids: The path of each video from there, with forward slashes.
        ids_by_name: From a name (path or file name, with or without the extension) to the ids of the videos it fits.
    """

    directory: Path
    ids: tuple[str, ...]
    ids_by_name: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, directory: Path, videos: Iterable[Path]) -> VideoCatalogue:
        """Return the catalogue of ``videos``, all of which lie below ``directory``."""
        paths = [PurePosixPath(video.relative_to(directory).as_posix()) for video in videos]
        fitting: dict[str, list[str]] = {}
        for path in paths:
            for name in {path.name, str(path.with_suffix("")), path.stem}:
                fitting.setdefault(name, []).append(str(path))
        ids_by_name = {name: tuple(ids) for name, ids in fitting.items()}
        # A whole path settles it, even when a video in another folder has that path for its file name.
        ids_by_name |= {str(path): (str(path),) for path in paths}
        return cls(directory, tuple(map(str, paths)), ids_by_name)

    def find(self, name: str, *, where: str) -> str | None:
        """Return the id of the video that ``name`` means, None when there is none.

        Args:
            name: What a label calls it.
            where: The label's file and line, for the message.

        Raises:
            DatasetError: It may mean several; the message lists them.
        """
        candidates = self.ids_by_name.get(name, ())
        if len(candidates) > 1:
            raise DatasetError(
                f"{where}: '{name}' fits several videos: {', '.join(candidates)}.",
                f"Name the video by its path from {self.directory}, with the extension.",
            )
        return candidates[0] if candidates else None


@dataclass(frozen=True)
class _VideoLabel:
    line: int
    name: str
    score: float
    group: str


def _read_labels(table: CsvTable, columns: ColumnNames) -> list[_VideoLabel]:
    required = [("--video-column", columns.video), ("--score-column", columns.score)]
    if columns.group != ColumnNames().group:  # a name of the user's own must be there, the default need not
        required.append(("--group-column", columns.group))
    for option, column in required:
        if column not in table.columns:
            raise DatasetError(
                f"{table.path} has no column '{column}'; it has: {', '.join(table.columns)}.",
                f"Say which one it is with {option}.",
            )
    if not table.rows:
        raise DatasetError(f"{table.path} holds no labels.", "Below the header it needs one row per video.")
    return [_read_label(table.path, row, columns) for row in table.rows]


def _read_label(file: Path, row: CsvRow, columns: ColumnNames) -> _VideoLabel:
    name = row.cells[columns.video].strip().replace("\\", "/").removeprefix("./")
    if not name:
        raise DatasetError(f"{file}, line {row.line}, column '{columns.video}': the name is empty.", "Name the video.")
    score = parse_score(row.cells[columns.score])
    if score is None:
        raise DatasetError(
            f"{file}, line {row.line}, column '{columns.score}': '{row.cells[columns.score]}' is no number.",
            "Give a finite number with a decimal point, or remove the row.",
        )
    return _VideoLabel(row.line, name, score, row.cells.get(columns.group, "").strip())


def _expected_path(directory: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    leads_elsewhere = relative.is_absolute() or ".." in relative.parts
    return directory / (relative.name if leads_elsewhere else relative)


def _name_label(columns: ColumnNames) -> Label:
    return Label("MOS" if columns.score.lower() in _NAMES_OF_A_MOS else columns.score)


def _nothing_matched(table: CsvTable, names: list[str], catalogue: VideoCatalogue) -> DatasetError:
    return DatasetError(
        f"None of the {len(names)} labels of {table.path} fits any of the {len(catalogue.ids)} videos in "
        f"{catalogue.directory}: labels such as {', '.join(names[:_EXAMPLES])}; "
        f"videos such as {', '.join(catalogue.ids[:_EXAMPLES])}.",
        "Check --videos and --video-column.",
    )
