"""Photographs made worse in five steps: does a regressor that was trained on the others give them falling scores?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffvqa.pipeline._config import Runtime
from diffvqa.pipeline._scorer import Scorer
from diffvqa.stages._denoiser_training.degradations import DEGRADATIONS
from diffvqa.stages._metrics import spearman_correlation
from diffvqa.stages._seeding import derive_seed

from .photographs import Photograph

DISTORTIONS = ("blur", "noise", "h264", "jpeg", "downscale")
SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
_CONTENTS = 20
_CLEAN = "ss03"


@dataclass(frozen=True)
class Decline:
    """How scores fall as photographs get worse in one way.

    Attributes:
        distortion: The way.
        correlations: Per content, Spearman's rank correlation of its six scores with minus the severity: 1 is falling
            at every step.
        mean_scores: Of the photographs as they are, and at each severity.
    """

    distortion: str
    correlations: tuple[float, ...]
    mean_scores: tuple[float, ...]


def clean_contents(photographs: Sequence[Photograph]) -> tuple[Photograph, ...]:
    """Return the photographs of the test part to make worse: people's favourites among those not made worse before."""
    clean = [each for each in photographs if each.part == "test" and each.source == _CLEAN]
    return tuple(sorted(clean, key=lambda each: each.score, reverse=True)[:_CONTENTS])


def measure(contents: Sequence[Photograph], model: Path, runtime: Runtime, folder: Path) -> tuple[Decline, ...]:
    """Make the contents worse, score them, and return how the scores fall.

    Args:
        contents: To make worse.
        model: Folder of a trained regressor.
        runtime: Where to score.
        folder: Where to put the pictures.
    """
    paths = {
        (each.name, distortion, severity): _made_worse(each, distortion, severity, folder)
        for each in contents
        for distortion in DISTORTIONS
        for severity in (0.0, *SEVERITIES)
    }
    scored = Scorer(model, runtime).score(list(dict.fromkeys(paths.values())))
    scores = {Path(each.path): each.score for each in scored}
    return tuple(_decline(contents, distortion, paths, scores) for distortion in DISTORTIONS)


def _decline(
    contents: Sequence[Photograph],
    distortion: str,
    paths: dict[tuple[str, str, float], Path],
    scores: dict[Path, float | None],
) -> Decline:
    steps = (0.0, *SEVERITIES)
    table = np.array([[scores[paths[each.name, distortion, step]] for step in steps] for each in contents], float)
    return Decline(
        distortion,
        tuple(spearman_correlation(-np.array(steps), row) for row in table),
        tuple(table.mean(axis=0).tolist()),
    )


def _made_worse(photograph: Photograph, distortion: str, severity: float, folder: Path) -> Path:
    """Return the file of the photograph made worse, without further loss; made if it is not there."""
    name = "as-it-is" if severity == 0 else f"{distortion}-{severity:.1f}"
    path = folder / f"{Path(photograph.name).stem}-{name}.png"
    if path.is_file():
        return path
    with Image.open(photograph.path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    if severity > 0:
        rng = np.random.default_rng(derive_seed(0, photograph.name, distortion))
        picture = DEGRADATIONS[distortion](picture, severity, rng)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path
