"""What scoring gives for a video; apart from what computes it, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FrameQuality:
    """What one sampled frame contributes to a video's score, the mean over the regressors of the splits.

    Attributes:
        frame: Its index in the file, in presentation order.
        time: Seconds since the first frame.
        quality: On the label's scale.
        weight: In [0, 1]; the weights of a video's frames sum to one.
    """

    frame: int
    time: float
    quality: float
    weight: float


@dataclass(frozen=True)
class ScoredVideo:
    """The score of one video, or why there is none.

    Attributes:
        path: The file, or its URL.
        score: On the label's scale; None for a video that failed.
        score_std: Standard deviation over the regressors of the splits; None for a video that failed.
        reason: Empty, or the kind of failure.
        detail: Empty, or the decoder's own words.
        timeline: Of each sampled frame, in order of time; empty for a video that failed.
    """

    path: Path | str
    score: float | None
    score_std: float | None
    reason: str = ""
    detail: str = ""
    timeline: tuple[FrameQuality, ...] = ()
