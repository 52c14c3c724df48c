"""Finding the label files of a published data set beside its videos, and telling which of the known ones a file is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline.datasets._label_table import LabelTable, read_label_table
from diffvqa.pipeline.datasets._published import LabelFile, PublishedDataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundLabels:
    """A label file on the disk.

    Attributes:
        file: Which of the known ones it is.
        table: Its content.
    """

    file: LabelFile
    table: LabelTable

    def column(self, name: str) -> Sequence[str]:
        """Return the entries of one of its columns, whatever its case, blanks and punctuation."""
        return self.table.columns[_columns_by_plain_name(self.table)[_plain(name)]]


def find_label_files(dataset: PublishedDataset, videos: Path, given: Path | None) -> list[FoundLabels]:
    """Return the label files of a data set: the one that is given, or those found by their names.

    Without a given file they are looked for in ``videos``, in the folders there, and beside ``videos``; a given folder
    is the only one looked in. Where the official split has parts in files of their own, all that are found count.

    Args:
        dataset: What to look for.
        videos: Folder of its videos.
        given: A label file or a folder of some; None to look beside the videos.

    Raises:
        DatasetError: None is found that can be read, or several of one name lie side by side.
    """
    if given is not None and not given.is_dir():
        return [recognise(dataset, given)]
    places = [[given]] if given is not None else _places_beside(videos)
    found: list[FoundLabels] = []
    covered: set[str] = set()
    refused: list[DatasetError] = []
    for file in dataset.useful_files():
        overlaps = not covered.isdisjoint(file.parts()) or (covered and "" in covered | file.parts())
        path = None if overlaps else _find(file, places)
        if path is None:
            continue
        try:
            labels = recognise(dataset, path)
        except DatasetError as error:  # another one may do: a spreadsheet often lies beside a CSV
            refused.append(error)
            continue
        found.append(labels)
        covered |= labels.file.parts()
    if found:
        for refusal in refused:
            logger.warning("passed over: %s", refusal.what)
        return found
    if refused:
        raise refused[0]
    raise DatasetError(
        f"No label file of {dataset.title} lies in {given or videos}{'' if given else ' or beside it'}.",
        f"Give it with --labels; known are: {', '.join(_names_of(dataset))}.",
    )


def recognise(dataset: PublishedDataset, path: Path) -> FoundLabels:
    """Read a label file and tell which of the known ones it is, by its name and by its columns.

    Raises:
        DatasetError: It cannot be read, or is none of them.
    """
    table = read_label_table(path)
    fitting = [file for file in dataset.known_files() if _has_columns(file, table)]
    called = [file for file in fitting if file.is_called(path.name)]
    if called:
        return FoundLabels(called[0], table)
    wanted = [file for file in fitting if file.parts() & {"", *dataset.wanted_parts}]
    if not wanted:
        raise DatasetError(
            f"{path} is no label file of {dataset.title} that is known; it has the columns "
            f"{', '.join(table.columns) or '(none)'}.",
            f"Known are: {', '.join(_names_of(dataset))}; or a CSV file with the columns name and mos.",
        )
    if len({file.parts() for file in wanted}) > 1 and not any("" in file.parts() for file in wanted):
        raise DatasetError(
            f"{path} may hold any part of {dataset.title}.",
            f"Name it as its authors do: {', '.join(_names_of(dataset))}.",
        )
    return FoundLabels(wanted[0], table)


def _places_beside(videos: Path) -> list[list[Path]]:
    """Return the folders to look in, the nearest first; those in one list are equally near."""
    try:
        inner = sorted(path for path in videos.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{videos} cannot be read: {error.strerror or error}.", "Check --videos.") from error
    return [[videos], inner, [videos.resolve().parent]]


def _find(file: LabelFile, places: Iterable[Iterable[Path]]) -> Path | None:
    for folders in places:
        found = [path for folder in folders for path in _files_in(folder) if file.is_called(path.name)]
        if len(found) > 1:
            raise DatasetError(
                f"Several label files may be meant: {', '.join(map(str, found))}.", "Say which one with --labels."
            )
        if found:
            return found[0]
    return None


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:  # one that may not be read holds nothing for this user
        return []


def _names_of(dataset: PublishedDataset) -> list[str]:
    return list(dict.fromkeys(name for file in dataset.useful_files() for name in file.names))


def _has_columns(file: LabelFile, table: LabelTable) -> bool:
    needed = [file.video, file.score, *filter(None, [file.split_column])]
    present = _columns_by_plain_name(table)
    return all(_plain(name) in present for name in needed)


def _columns_by_plain_name(table: LabelTable) -> dict[str, str]:
    return {_plain(name): name for name in reversed(list(table.columns))}


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
