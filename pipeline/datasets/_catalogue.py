"""From the name a label gives a video to the video's file, in one place for all recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import MatchReport
from diffvqa.pipeline.datasets._folder import location_below
from diffvqa.pipeline.datasets._recipe import OnProgress, Progress

_EXAMPLES = 3

NamesOf = Callable[[PurePosixPath], Iterable[str]]


@dataclass(frozen=True)
class VideoCatalogue:
    """The videos below a directory or a URL, by every name a label may use for them.

    Attributes:
        place: The directory or the URL.
        ids: The path of each video from there, with forward slashes.
        ids_by_name: From a name to the ids of the videos it fits.
    """

    place: Path | str
    ids: tuple[str, ...]
    ids_by_name: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, place: Path | str, videos: Iterable[str], names_of: NamesOf) -> VideoCatalogue:
        """Return the catalogue of ``videos``.

        Args:
            place: All of them lie below it.
            videos: Their paths from there.
            names_of: The names that labels may use for a video, from its path from ``place``.
        """
        paths = [PurePosixPath(video) for video in videos]
        fitting: dict[str, list[str]] = {}
        for path in paths:
            for name in set(names_of(path)):
                fitting.setdefault(name, []).append(str(path))
        return cls(place, tuple(map(str, paths)), {name: tuple(ids) for name, ids in fitting.items()})

    def find(self, name: str, written: str, *, where: str) -> str | None:
        """Return the id of the video that a label means, None when there is none.

        Where the name fits several videos, one with the very path that is written is meant, or else the only one whose
        path ends with what is written.

        Args:
            name: What to look for.
            written: What the label calls it, perhaps with folders and an extension.
            where: The label's file and line, for the message.

        Raises:
            DatasetError: It may mean several; the message lists them.
        """
        candidates = self.ids_by_name.get(name, ())
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        if written in candidates:
            return written
        ending = [candidate for candidate in candidates if f"/{candidate}".endswith(f"/{written}")]
        if len(ending) == 1:
            return ending[0]
        raise DatasetError(
            f"{where}: '{written}' fits several videos: {', '.join(candidates)}.",
            f"Keep one of them below {self.place}, or name it in the label by its path from there.",
        )


@dataclass(frozen=True)
class VideoLabel:
    """One row of a label file.

    Attributes:
        where: Its file and line, for messages.
        name: What it calls the video.
        score: Its quality, finite; None when it has none that can be used.
        group: Its content group; empty when the video is its own.
        split: Its cell in the manifest's column ``split``.
    """

    where: str
    name: str
    score: float | None
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class Match:
    """A label and its video.

    Attributes:
        label: The label.
        video_id: What the manifest calls the video.
        location: Path or URL of its file, or where it was expected.
    """

    label: VideoLabel
    video_id: str
    location: str


def match_labels(
    labels: Sequence[VideoLabel],
    catalogue: VideoCatalogue,
    *,
    name_of: Callable[[str], str],
    id_of: Callable[[str, str | None], str],
    on_progress: OnProgress,
    hint: str,
) -> tuple[tuple[Match, ...], MatchReport]:
    """Find each label's video.

    A label whose video is not there keeps the path where the video was expected. A label that comes twice with one
    score counts once.

    Args:
        labels: At least one.
        catalogue: The videos.
        name_of: The catalogue's name for what a label calls a video.
        id_of: The manifest's id, from what the label calls the video and the catalogue's id, None when it is not there.
        on_progress: Called after each label.
        hint: What to do when nothing fits at all.

    Returns:
        A match for each video that is labelled, in the order of the labels, and the report.

    Raises:
        DatasetError: A label fits several videos, a video has two scores, or nothing fits at all.
    """
    matches: dict[str, Match] = {}
    found: set[str] = set()
    missing: list[str] = []
    duplicates: list[str] = []
    for done, label in enumerate(labels, start=1):
        written = label.name.replace("\\", "/").removeprefix("./")
        catalogued = catalogue.find(name_of(written), written, where=label.where)
        video_id = id_of(written, catalogued)
        former = matches.get(video_id)
        if former is None:
            location = location_below(catalogue.place, catalogued or _expected_name(written))
            matches[video_id] = Match(label, video_id, location)
            found.update(filter(None, [catalogued]))
            missing += [] if catalogued else [label.name]
        elif former.label.score == label.score:
            duplicates.append(label.name)
        else:
            raise DatasetError(
                f"{label.where}: '{video_id}' is labelled {label.score}, but {former.label.score} at "
                f"{former.label.where}.",
                "Remove one of them.",
            )
        on_progress(Progress(done, len(labels), video_id))
    if not found:
        raise _nothing_matched(labels, catalogue, hint)
    unlabelled = tuple(video_id for video_id in catalogue.ids if video_id not in found)
    without_score = tuple(match.label.name for match in matches.values() if match.label.score is None)
    report = MatchReport(len(found), tuple(missing), unlabelled, tuple(duplicates), without_score)
    return tuple(matches.values()), report


def _expected_name(written: str) -> str:
    relative = PurePosixPath(written)
    leads_elsewhere = relative.is_absolute() or ".." in relative.parts
    return relative.name if leads_elsewhere else str(relative)


def _nothing_matched(labels: Sequence[VideoLabel], catalogue: VideoCatalogue, hint: str) -> DatasetError:
    names = [label.name for label in labels]
    return DatasetError(
        f"None of the {len(names)} labels fits any of the {len(catalogue.ids)} videos in {catalogue.place}: "
        f"labels such as {', '.join(names[:_EXAMPLES])} ({labels[0].where}); "
        f"videos such as {', '.join(catalogue.ids[:_EXAMPLES])}.",
        hint,
    )
