"""The photographs with their scores, divided into parts by a hash of their names, as a prepared data set."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, write_manifest
from diffvqa.stages._splits import Part, Split
from diffvqa.stages._training_data import VideoSample

DATASET = "photographs"
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.08


@dataclass(frozen=True)
class Photograph:
    """A photograph with its score.

    Attributes:
        name: Of its file.
        path: The file.
        score: Mean opinion score in [0, 1], higher is better.
        part: Of the split.
    """

    name: str
    path: Path
    score: float
    part: Part

    @property
    def source(self) -> str:
        """Where it comes from, the start of its name: ``ss01`` and so on."""
        return self.name.partition("_")[0]


def read_photographs(folder: Path, *, take: int | None = None) -> tuple[Photograph, ...]:
    """Return the photographs of a folder with ``images/`` and ``labels.csv``, in the order of their hashes.

    A fifth is the test part. Of the rest, some choose the regressor's epoch and are trained on by nothing else.

    Args:
        folder: Of the photographs.
        take: Only this many, with the same shares of the parts; all when None.
    """
    with (folder / "labels.csv").open(newline="") as file:
        scores = {row["image_name"]: float(row["mos"]) for row in csv.DictReader(file)}
    ordered = sorted(scores, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    tested = round(_TEST_SHARE * len(ordered))
    validated = tested + round(_VALIDATION_SHARE * len(ordered))
    parts: list[tuple[Part, list[str]]] = [
        ("test", ordered[:tested]),
        ("validation", ordered[tested:validated]),
        ("train", ordered[validated:]),
    ]
    share = 1.0 if take is None else take / len(ordered)
    return tuple(
        Photograph(name, folder / "images" / name, scores[name], part)
        for part, names in parts
        for name in names[: round(share * len(names))]
    )


def prepare(photographs: Sequence[Photograph], runs: Path) -> None:
    """Write them as the prepared data set :data:`DATASET`, with their split as the official one."""
    rows = tuple(
        ManifestRow(each.name, str(each.path.resolve()), each.score, group=each.name, split=each.part)
        for each in photographs
    )
    write_manifest(runs / DATASET, Manifest(DATASET, rows, Label("MOS", lowest=0.0, highest=1.0)))


def samples_of(photographs: Sequence[Photograph]) -> tuple[VideoSample, ...]:
    """Return them as what a regressor is trained on."""
    return tuple(VideoSample(each.name, each.score, each.name, DATASET) for each in photographs)


def split_of(photographs: Sequence[Photograph]) -> Split:
    """Return their one split."""
    train, validation, test = (
        tuple(sorted(each.name for each in photographs if each.part == part))
        for part in ("train", "validation", "test")
    )
    return Split(train, validation, test, name=DATASET)


def list_training_pictures(photographs: Sequence[Photograph], file: Path) -> None:
    """Write the files that a diffusion model may be trained on so that the test part stays unseen, one a line."""
    atomic_write_text(file, "".join(f"{each.path.resolve()}\n" for each in photographs if each.part != "test"))
