"""Why a video could not be used: failure is data, a reason and the decoder's own words."""

from __future__ import annotations

from enum import StrEnum


class FailureReason(StrEnum):
    """Why a video could not be used; what each one means to a user is told in ``docs/video-ingest.md``."""

    MISSING = "missing"
    UNREACHABLE = "unreachable"
    EMPTY = "empty"
    NO_VIDEO_STREAM = "no_video_stream"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    NOT_FINITE = "not_finite"


class VideoUnusableError(Exception):
    """A video cannot be used; becomes a row with a reason, never the end of a run.

    Args:
        reason: The kind of failure.
        detail: The decoder's own words, or empty.
    """

    def __init__(self, reason: FailureReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
