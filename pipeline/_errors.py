"""Errors of what a user runs: data sets, configuration and outside programs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from diffvqa.cache._errors import DiffVQAError


class DatasetError(DiffVQAError):
    """A data set cannot be prepared or read: unknown recipe, missing column, no match, bad manifest."""


class ConfigError(DiffVQAError):
    """A setting is unknown, of the wrong type or out of range."""


class FfmpegError(DiffVQAError):
    """The ffmpeg program failed; the message carries what it said."""


class ClusterError(DiffVQAError):
    """A Ray cluster cannot be used: not installed, not reachable, or too small."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` for the known name nearest to ``name``, or nothing when none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{nearest[0]}'?" if nearest else ""
