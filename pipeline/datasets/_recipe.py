"""What a data-set recipe is: a name, what it needs, and a function that lists the videos and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.cache._source_files import file_location
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Manifest, MatchReport

if TYPE_CHECKING:
    from diffvqa.pipeline.datasets._published import PublishedDataset


@dataclass(frozen=True)
class ColumnNames:
    """Which columns of a label file hold what.

    Attributes:
        video: The video's name.
        score: Its score.
        group: Its group; a file without it may only keep the default name.
        split: Its part of the official split; a file without it may only keep the default name.
    """

    video: str = "video"
    score: str = "score"
    group: str = "group"
    split: str = "split"


@dataclass(frozen=True)
class PrepareRequest:
    """What a user asks a recipe for.

    Attributes:
        name: What to call the data set.
        folder: The prepared data set's folder, where a recipe that makes videos puts them.
        videos: Folder of the videos, or its URL, for recipes that need one.
        labels: Label file, for recipes that need one.
        columns: Which of its columns hold what.
        lower_is_better: Whether its scores are such, as a DMOS is; for recipes that do not know.
        workers: Videos to make at a time, at least 1.
    """

    name: str
    folder: Path
    videos: Path | str | None = None
    labels: Path | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    lower_is_better: bool = False
    workers: int = 1

    def require_videos(self) -> Path | str:
        """Return the videos' folder or URL.

        Raises:
            DatasetError: None was given.
        """
        if self.videos is None:
            raise DatasetError(f"Data set '{self.name}' needs a folder of videos.", "Give it with --videos.")
        return file_location(self.videos)

    def require_labels(self) -> Path:
        """Return the label file.

        Raises:
            DatasetError: None was given.
        """
        if self.labels is None:
            raise DatasetError(f"Data set '{self.name}' needs a label file.", "Give it with --labels.")
        return self.labels


@dataclass(frozen=True)
class PreparedDataset:
    """What a recipe gives back; nothing of it is written yet.

    Attributes:
        manifest: The videos.
        report: How labels and videos fitted together.
    """

    manifest: Manifest
    report: MatchReport


@dataclass(frozen=True)
class Progress:
    """How far a preparation is.

    Attributes:
        done: Steps done.
        total: Steps in all.
        item: What was done last.
    """

    done: int
    total: int
    item: str


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Recipe:
    """How one kind of data set is prepared.

    Attributes:
        name: What users call it.
        summary: One line for a list of recipes.
        needs_videos: Whether ``PrepareRequest.videos`` must be given.
        needs_labels: Whether ``PrepareRequest.labels`` must be given.
        prepare: Does it; raises ``DatasetError`` when the data set cannot be prepared.
        dataset: What is known of the published data set that it prepares; None for one that is the user's own.
    """

    name: str
    summary: str
    needs_videos: bool
    needs_labels: bool
    prepare: Callable[[PrepareRequest, OnProgress], PreparedDataset]
    dataset: PublishedDataset | None = None
