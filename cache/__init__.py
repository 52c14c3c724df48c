"""The feature cache: schema, fingerprint, shards, catalogue, reading, export. Knows no model and no command line.

What scripts of one's own need is here by name, and imported when it is asked for; everything else in this package may
change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.cache.errors import CacheError, DiffVQAError
    from diffvqa.cache.in_memory import load_into_memory
    from diffvqa.cache.reader import FeatureCache
    from diffvqa.cache.streaming import FeatureStream
    from diffvqa.cache.torch_data import FeatureDataset, FeatureStreamDataset

__all__ = [
    "CacheError",
    "DiffVQAError",
    "FeatureCache",
    "FeatureDataset",
    "FeatureStream",
    "FeatureStreamDataset",
    "load_into_memory",
]

_MODULES = {
    "CacheError": "errors",
    "DiffVQAError": "errors",
    "FeatureCache": "reader",
    "FeatureDataset": "torch_data",
    "FeatureStream": "streaming",
    "FeatureStreamDataset": "torch_data",
    "load_into_memory": "in_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
