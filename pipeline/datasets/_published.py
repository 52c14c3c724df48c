"""What is known of a published data set: its label files, names, scale, releases, contents and official split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from types import MappingProxyType

from diffvqa.pipeline.datasets._folder import PICTURE_SUFFIXES, VIDEO_SUFFIXES

_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES | {".yuv"}

Identify = Callable[[PurePosixPath], str]


def without_suffix(path: PurePosixPath) -> str:
    """Return a file's name without the suffixes of a video or a picture; other dots belong to the name.

    Names that lack an extension may still end like one: ``xmas.flv`` is in truth ``xmas.flv.mp4``. Both give ``xmas``.
    """
    name = path.name
    while (end := name.rfind(".")) > 0 and name[end:].lower() in _SUFFIXES:
        name = name[:end]
    return name


@dataclass(frozen=True)
class LabelFile:
    """A label file that people have.

    Attributes:
        names: What the file is called, ``*`` for anything, upper and lower case alike; empty when it may be called
            anything and is only used when the user names it.
        video: Its column with the videos' names; columns match whatever their case, blanks and punctuation.
        score: Its column with the scores.
        origin: Whose file it is, ``official`` or a project's name.
        part: The part of the official split that all its videos are in; empty when it does not say.
        split_column: Its column that says so for each video; empty when it has none.
        split_values: The part that each value of that column means.
    """

    names: tuple[str, ...]
    video: str
    score: str
    origin: str = "official"
    part: str = ""
    split_column: str = ""
    split_values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def is_called(self, name: str) -> bool:
        """Return whether a file of that name may be it."""
        return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in self.names)

    def parts(self) -> frozenset[str]:
        """Return the parts that its videos may be in; the empty one when it does not say."""
        return frozenset(self.split_values.values()) if self.split_column else frozenset({self.part})


FAST_VQA = LabelFile(("labels.txt",), video="path", score="mos", origin="FAST-VQA")
# Only used when the user names it.
_ANY_CSV = tuple(
    LabelFile((), video, score, origin="any CSV")
    for video, score in (
        ("name", "mos"),
        ("video", "mos"),
        ("video", "score"),
        ("filename", "mos"),
        ("imagename", "mos"),
    )
)


@dataclass(frozen=True)
class PublishedDataset:
    """A data set that many people have, in whatever release.

    Attributes:
        name: The recipe's name.
        title: What its authors call it.
        scale: Lowest and highest possible score; higher is better.
        counts: For each known number of labels, which release has it.
        files: The label files that are known, the official ones first.
        naming: What its videos are called, for the list of recipes.
        split: Its official or customary split, for the list of recipes.
        identify: From a video's path, as a label or a disk has it, to its id, the same in every release.
        group: From a video's id to its content.
        contents: What a content group is, for the list of recipes.
        part: The one part of the official split to take; empty for all.
        cells: For each part, what stands in the manifest's column ``split``; a part without has nothing there.
        divided_by: Some label files hold the scores divided by this; 1 when none does.
        pictures: Whether its videos are photographs, of one frame each.
        hint: What to do when no video is there; empty for the usual advice.
    """

    name: str
    title: str
    scale: tuple[float, float]
    counts: Mapping[int, str]
    files: tuple[LabelFile, ...]
    naming: str
    split: str = "random 80/20 splits"
    identify: Identify = without_suffix
    group: Callable[[str], str] = str
    contents: str = "each video its own"
    part: str = ""
    cells: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    divided_by: float = 1.0
    pictures: bool = False
    hint: str = "Check --videos and --labels: they belong to different data sets or releases."

    @property
    def suffixes(self) -> frozenset[str]:
        """What the names of its files end in."""
        return PICTURE_SUFFIXES if self.pictures else VIDEO_SUFFIXES

    @property
    def wanted_parts(self) -> Collection[str]:
        """The parts of the official split to take, the empty one where there is no such split."""
        return [self.part] if self.part else list(self.cells) or [""]

    def known_files(self) -> tuple[LabelFile, ...]:
        """Return the label files it can read, those of any name last."""
        return (*self.files, *_ANY_CSV)

    def useful_files(self) -> tuple[LabelFile, ...]:
        """Return the label files with labels of the parts to take, those that are looked for by name."""
        wanted = {"", *self.wanted_parts}
        return tuple(file for file in self.files if file.parts() & wanted)
