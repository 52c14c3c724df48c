"""Which versions of which software made a result."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return name -> version of those distributions that are installed."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional one
    return versions
