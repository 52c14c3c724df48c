"""Seeds for every random choice, so that results depend on what is computed and never on the order it is done in."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """Return a seed that is a function of ``parts`` alone, the same on every machine and in every process.

    Args:
        parts: What the random choice belongs to, such as ``(recipe seed, video id, frame, view)``.

    Returns:
        An integer in [0, 2**63), from the SHA-256 of the parts' JSON, so ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
