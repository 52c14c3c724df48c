"""Values as JSON knows them."""

from __future__ import annotations

import math
from typing import Any


def without_nan(value: Any) -> Any:
    """Return dicts, lists and tuples with None in the place of every NaN and infinity, which JSON does not know."""
    match value:
        case dict():
            return {key: without_nan(each) for key, each in value.items()}
        case list() | tuple():
            return [without_nan(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value
