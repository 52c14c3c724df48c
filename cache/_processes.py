"""Whether processes of this machine are still there."""

from __future__ import annotations

import os


def process_exists(process: int) -> bool:
    """Return whether a process of this machine has this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
