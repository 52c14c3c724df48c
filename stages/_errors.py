"""Errors of the computing layer."""

from __future__ import annotations

from diffvqa.cache._errors import DiffVQAError


class ModelFolderError(DiffVQAError):
    """A diffusion model folder is missing something or does not fit together."""


class BackboneError(DiffVQAError):
    """A backbone's name or settings do not fit what there is."""


class DeviceMemoryError(DiffVQAError):
    """The least that can be computed at once does not fit the device's memory."""


class CheckpointError(DiffVQAError):
    """A checkpoint of another program cannot be imported."""


class TrainingDataError(DiffVQAError):
    """The data cannot be trained on: too few contents, missing or constant scores, no features."""


class RegressorFolderError(DiffVQAError):
    """A trained regressor's folder is missing, unreadable or made from other features."""


class TrainingStateError(DiffVQAError):
    """A training that was begun cannot be gone on with: it was another one, or its checkpoint is damaged."""
