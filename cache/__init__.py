"""The feature cache: schema, fingerprint, shards, catalogue, reading, export. Knows no model and no command line.

What is listed here may be imported, and is loaded when it is asked for; everything else is private.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.cache._errors import CacheError, DiffVQAError
    from diffvqa.cache._in_memory import load_into_memory
    from diffvqa.cache._reader import FeatureCache
    from diffvqa.cache._streaming import FeatureStream
    from diffvqa.cache._torch_data import FeatureDataset, FeatureStreamDataset

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
    "CacheError": "_errors",
    "DiffVQAError": "_errors",
    "FeatureCache": "_reader",
    "FeatureDataset": "_torch_data",
    "FeatureStream": "_streaming",
    "FeatureStreamDataset": "_torch_data",
    "load_into_memory": "_in_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
