"""The fingerprint of features: which weights, recipe and code schema made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from diffvqa.cache._errors import FingerprintMismatchError

FingerprintValue = str | int | float | bool | None


@dataclass(frozen=True)
class Fingerprint:
    """Named values that together decide what the features are.

    Attributes:
        fields: Flat, such as ``{"schema_version": 1, "model.diffusion": "4be1...", "frames": 8}``.
    """

    fields: Mapping[str, FingerprintValue]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the fields' canonical JSON."""
        canonical = json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def require_equal(self, stored: Fingerprint, where: str, ways_out: str) -> None:
        """Check that features stored at ``where`` are those asked for.

        Args:
            stored: The fingerprint found there.
            where: Named in the message.
            ways_out: What the user can do about a difference.

        Raises:
            FingerprintMismatchError: They differ; the message names each differing field and both values.
        """
        missing = "(absent)"
        differences = [
            f"{name} is {stored.fields.get(name, missing)} there, {self.fields.get(name, missing)} was asked for"
            for name in sorted({*stored.fields, *self.fields})
            if stored.fields.get(name, missing) != self.fields.get(name, missing)
        ]
        if differences:
            raise FingerprintMismatchError(f"{where} holds other features: {'; '.join(differences)}.", ways_out)
