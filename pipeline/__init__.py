"""What a user runs: data sets, configuration, engines and the ``diffvqa`` command; a module for each of its verbs.

What scripts of one's own need is here by name, and imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.pipeline.scorer import Scorer

__all__ = ["Scorer"]

_MODULES = {"Scorer": "scorer"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
