"""What a user runs: data sets, settings, the ``diffvqa`` command, and a module for each of its verbs.

The function that a verb's module has under the verb's name, as in ``from diffvqa.pipeline.extract import extract``,
does the same from Python and returns a summary. What else scripts of one's own need is here by name, and imported when
it is asked for; everything else in this package may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.pipeline.config import Runtime, Settings, resolve_settings
    from diffvqa.pipeline.errors import ConfigError, DatasetError
    from diffvqa.pipeline.manifest import Label, Manifest, ManifestRow, read_manifest, write_manifest
    from diffvqa.pipeline.scorer import FrameQuality, ScoredVideo, Scorer

__all__ = [
    "ConfigError",
    "DatasetError",
    "FrameQuality",
    "Label",
    "Manifest",
    "ManifestRow",
    "Runtime",
    "ScoredVideo",
    "Scorer",
    "Settings",
    "read_manifest",
    "resolve_settings",
    "write_manifest",
]

_MODULES = {
    "ConfigError": "errors",
    "DatasetError": "errors",
    "FrameQuality": "scorer",
    "Label": "manifest",
    "Manifest": "manifest",
    "ManifestRow": "manifest",
    "Runtime": "config",
    "ScoredVideo": "scorer",
    "Scorer": "scorer",
    "Settings": "config",
    "read_manifest": "manifest",
    "resolve_settings": "config",
    "write_manifest": "manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
