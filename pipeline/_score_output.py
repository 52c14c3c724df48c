"""Scores as rows: CSV or JSON lines, each written whole as it comes, so that a file can be gone on with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from diffvqa.cache._atomic import atomic_write_bytes, reporting_output_errors
from diffvqa.cache._source_files import file_location
from diffvqa.pipeline._errors import ConfigError
from diffvqa.pipeline._scored_video import ScoredVideo

WriteVideo = Callable[[ScoredVideo], None]

COLUMNS = ("path", "score", "score_std", "label", "status", "reason", "detail")
TIMELINE_COLUMNS = ("path", "frame", "time", "quality", "weight")
_ANY_NAME = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name need not be Unicode
_START_ANEW = "Leave out --resume to score all of it anew, or choose another file."


class RowFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSON_LINES = "jsonl"

    @classmethod
    def of(cls, path: Path) -> RowFormat:
        """Return the format that a file's suffix names.

        Raises:
            ConfigError: It names none.
        """
        for each in cls:
            if path.suffix.lower() == f".{each}":
                return each
        raise ConfigError(f"{path}: no scores are written as '{path.suffix}'.", "Use .csv or .jsonl.")

    def heading(self) -> str:
        """Return what stands above the rows."""
        return _csv_line(COLUMNS) if self is RowFormat.CSV else ""

    def row(self, video: ScoredVideo, label: str, *, timeline: bool = False) -> str:
        """Return a video's row, its line end included.

        Args:
            video: Its score or failure.
            label: What the score is.
            timeline: Put the frames into a row of JSON.
        """
        status = "failed" if video.score is None else "ok"
        if self is RowFormat.CSV:
            return _csv_line(
                (video.path, _digits(video.score), _digits(video.score_std), label, status, video.reason, video.detail)
            )
        content: dict[str, Any] = {
            "path": str(video.path),
            "score": video.score,
            "score_std": video.score_std,
            "label": label,
            "status": status,
            "reason": str(video.reason),
            "detail": video.detail,
        }
        if timeline:
            content["timeline"] = [asdict(frame) for frame in video.timeline]
        return json.dumps(content, allow_nan=False) + "\n"

    def parse(self, text: str, where: Path) -> list[tuple[ScoredVideo, str]]:
        """Return the videos of the whole rows of a text, and each row as it stood; the last may have been cut off.

        Raises:
            ConfigError: The text is no such table of scores.
        """
        try:
            return self._parse_csv(text) if self is RowFormat.CSV else self._parse_lines(text)
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise ConfigError(f"{where} holds no scores to go on with: {error}.", _START_ANEW) from error

    def _parse_csv(self, text: str) -> list[tuple[ScoredVideo, str]]:
        heading, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        if rows and (not text.endswith("\n") or len(rows[-1]) != len(COLUMNS)):
            rows.pop()
        if tuple(heading) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(heading)}")
        return [_from_cells(dict(zip(COLUMNS, cells, strict=True))) for cells in rows]

    def _parse_lines(self, text: str) -> list[tuple[ScoredVideo, str]]:
        whole = text[: text.rfind("\n") + 1]
        return [(_from_json(json.loads(line)), f"{line}\n") for line in whole.split("\n") if line]


@dataclass(frozen=True)
class ScoreFile:
    """A file of scores, and what lies beside it.

    Attributes:
        path: The file, ``.csv`` or ``.jsonl``.
        timeline: Whether the quality of each frame is written too: into the rows of JSON lines, or beside a CSV file.
    """

    path: Path
    timeline: bool = False

    @property
    def format(self) -> RowFormat:
        """Of the rows."""
        return RowFormat.of(self.path)

    @property
    def timeline_path(self) -> Path | None:
        """The file of the frames' qualities, where it is one of its own."""
        is_apart = self.timeline and self.format is RowFormat.CSV
        return self.path.with_suffix(".timeline.csv") if is_apart else None

    @property
    def provenance_path(self) -> Path:
        """The file that says what made the scores."""
        return self.path.with_name(f"{self.path.name}.provenance.json")

    def begin(self, provenance: Mapping[str, Any]) -> None:
        """Start anew: write the heading and what makes the scores.

        Raises:
            OutputError: A file cannot be written.
        """
        _write(self.path, self.format.heading())
        if self.timeline_path is not None:
            _write(self.timeline_path, _csv_line(TIMELINE_COLUMNS))
        _write(self.provenance_path, json.dumps(dict(provenance), indent=2, allow_nan=False) + "\n")

    def go_on(self, provenance: Mapping[str, Any], same: Sequence[str]) -> tuple[ScoredVideo, ...]:
        """Keep the whole rows of an interrupted run, remove what was cut off, and return their videos.

        Args:
            provenance: Of the scores that are to follow.
            same: Its keys that must be as they were.

        Raises:
            ConfigError: The file holds no scores, or such of another model.
            OutputError: A file cannot be written.
        """
        if not self.path.exists():
            self.begin(provenance)
            return ()
        try:
            before: dict[str, Any] = json.loads(self.provenance_path.read_text(encoding="utf-8"))
            text = self.path.read_bytes().decode(**_ANY_NAME)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} cannot be gone on with: {error}.", _START_ANEW) from error
        for key in same:
            if before.get(key) != provenance[key]:
                told = f"'{key}' was {before.get(key)}, and is {provenance[key]} now"
                raise ConfigError(f"{self.path} was made otherwise: {told}.", _START_ANEW)
        rows = self.format.parse(text, self.path)
        kept = self.format.heading() + "".join(row for _, row in rows)
        if kept != text:
            _write(self.path, kept)
        videos = tuple(video for video, _ in rows)
        if self.timeline_path is not None:
            self._cut_timeline({str(video.path) for video in videos})
        return videos

    @contextmanager
    def opened(self, label: str) -> Iterator[WriteVideo]:
        """Give a function that adds a video's row; a row is handed to the system whole, after its frames.

        Raises:
            OutputError: A file cannot be written.
        """
        with _appending(self.path) as append, _appending(self.timeline_path) as append_frames:

            def write(video: ScoredVideo) -> None:
                append_frames("".join(_timeline_rows(video)))
                append(self.format.row(video, label, timeline=self.timeline))

            yield write

    def _cut_timeline(self, done: set[str]) -> None:
        """Remove the frames of the videos that have no row."""
        assert self.timeline_path is not None  # noqa: S101  # only then is this called
        text = self.timeline_path.read_bytes().decode(**_ANY_NAME) if self.timeline_path.exists() else ""
        rows = [
            cells
            for cells in csv.reader(io.StringIO(text, newline=""))
            if len(cells) == len(TIMELINE_COLUMNS) and cells[0] in done
        ]
        _write(self.timeline_path, "".join(map(_csv_line, (TIMELINE_COLUMNS, *rows))))


def score_line(video: ScoredVideo) -> str:
    """Return a line on a video for people to read."""
    if video.score is None or video.score_std is None:
        return f"{'failed':>8}  {video.reason:>8}  {video.path}{f'  ({video.detail})' if video.detail else ''}"
    return f"{video.score:8.2f}  ±{video.score_std:7.2f}  {video.path}"


def score_heading() -> str:
    """Return what stands above such lines."""
    return f"{'score':>8}  {'± splits':>8}  video"


def timeline_lines(video: ScoredVideo) -> list[str]:
    """Return a line on each sampled frame of a video, for people to read."""
    return [
        f"{'':20}{frame.time:8.2f} s  quality {frame.quality:8.2f}  weight {frame.weight:.3f}"
        for frame in video.timeline
    ]


def _timeline_rows(video: ScoredVideo) -> Iterator[str]:
    for frame in video.timeline:
        numbers = (repr(frame.time), repr(frame.quality), repr(frame.weight))
        yield _csv_line((video.path, frame.frame, *numbers))


@contextmanager
def _appending(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Give a function that adds text to a file by one call to the system, so that only the system can cut it off."""
    if path is None:
        yield lambda _: None
        return
    with reporting_output_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(text: str) -> None:
        left = text.encode(**_ANY_NAME)
        with reporting_output_errors(path):  # only the writing: an error of the scoring is not the file's
            while left:
                left = left[os.write(descriptor, left) :]

    try:
        yield append
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    atomic_write_bytes(path, text.encode(**_ANY_NAME))


def _csv_line(cells: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)  # its own line ending makes it put cells with CR or LF in quotation marks
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _digits(value: float | None) -> str:
    return "" if value is None else repr(value)


def _from_cells(cells: Mapping[str, str]) -> tuple[ScoredVideo, str]:
    is_ok = cells["status"] == "ok"
    score, score_std = (float(cells[name]) if is_ok else None for name in ("score", "score_std"))
    video = ScoredVideo(file_location(cells["path"]), score, score_std, cells["reason"], cells["detail"])
    return video, _csv_line(tuple(cells.values()))


def _from_json(content: Mapping[str, Any]) -> ScoredVideo:
    return ScoredVideo(
        file_location(content["path"]), content["score"], content["score_std"], content["reason"], content["detail"]
    )
