"""Errors of what a user runs: data sets, configuration and outside programs."""

from __future__ import annotations

from diffvqa.cache.errors import DiffVQAError


class DatasetError(DiffVQAError):
    """A data set cannot be prepared or read: unknown recipe, missing column, no match, bad manifest."""


class ConfigError(DiffVQAError):
    """A setting is unknown, of the wrong type or out of range."""


class FfmpegError(DiffVQAError):
    """The ffmpeg program failed; the message carries what it said."""
