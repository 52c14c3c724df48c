"""Whether scores fall as a distortion gets worse: the demo's versions, ordered by severity, step by step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from diffvqa.pipeline.datasets._demo_plan import PRISTINE

_VERSION = re.compile(r"(?P<distortion>.+?)-(?:[a-z]+)?(?P<severity>\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class SeverityStep:
    """From one severity of a distortion to the next, over all contents that have both.

    Attributes:
        distortion: Such as ``h264``.
        milder: Name of the version before, such as ``h264-crf28``, or ``pristine``.
        worse: Name of the version after.
        contents: How many have both.
        score_before: Mean of the predicted scores of the milder versions.
        score_after: Of the worse ones.
        label_before: Mean of the labels of the milder versions.
        label_after: Of the worse ones.
        falling: In how many contents the predicted score falls.
    """

    distortion: str
    milder: str
    worse: str
    contents: int
    score_before: float
    score_after: float
    label_before: float
    label_after: float
    falling: int

    @property
    def holds(self) -> bool:
        """Whether the mean score falls."""
        return self.score_after < self.score_before


def severity_steps(scores: Mapping[str, tuple[float, float]]) -> tuple[SeverityStep, ...]:
    """Return every step of every distortion, from the pristine version on.

    Args:
        scores: By video id, such as ``bikes/h264-crf28.mp4``, its label and its predicted score.
    """
    by_version: dict[str, dict[str, tuple[float, float]]] = {}
    for video_id, pair in scores.items():
        path = PurePosixPath(video_id)
        by_version.setdefault(path.stem, {})[str(path.parent)] = pair
    steps = []
    for distortion, versions in _series(by_version).items():
        for milder, worse in pairwise((PRISTINE, *versions)):
            before, after = by_version.get(milder, {}), by_version[worse]
            both = sorted(before.keys() & after.keys())
            if both:
                steps.append(_step(distortion, milder, worse, [(before[name], after[name]) for name in both]))
    return tuple(steps)


def _series(versions: Iterable[str]) -> dict[str, list[str]]:
    """Return the versions of each distortion, the mildest first."""
    found: dict[str, list[tuple[float, str]]] = {}
    for version in versions:
        match = _VERSION.fullmatch(version)
        if match:
            found.setdefault(match["distortion"], []).append((float(match["severity"]), version))
    return {distortion: [name for _, name in sorted(those)] for distortion, those in sorted(found.items())}


def _step(
    distortion: str, milder: str, worse: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]]
) -> SeverityStep:
    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(pairs)

    return SeverityStep(
        distortion=distortion,
        milder=milder,
        worse=worse,
        contents=len(pairs),
        score_before=mean(before[1] for before, _ in pairs),
        score_after=mean(after[1] for _, after in pairs),
        label_before=mean(before[0] for before, _ in pairs),
        label_after=mean(after[0] for _, after in pairs),
        falling=sum(after[1] < before[1] for before, after in pairs),
    )
