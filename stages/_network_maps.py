"""Which channels of F_MS are whose: those of each network of a backbone, its means apart from its deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkMaps:
    """How many channels of F_MS a network has; the means lie before the deviations.

    Attributes:
        means: Of its maps, over a cell. All channels where it is not known which they are.
        deviations: Likewise; 0 where there are none, or where that is not known.
    """

    means: int
    deviations: int

    @property
    def channels(self) -> int:
        """All that it has."""
        return self.means + self.deviations

    @property
    def kinds(self) -> int:
        """Kinds of statistics that the kernel part compares by themselves: means, and deviations if there are any."""
        return 2 if self.deviations else 1


def network_maps(levels: Mapping[str, tuple[int, int]]) -> tuple[NetworkMaps, ...]:
    """Return what each network has, in their order in F_MS.

    Args:
        levels: Name to (first channel, one past its last), in order, as a cache tells of ``multiscale``; named
            ``network/map/statistic`` in a combination, else ``map/statistic``.
    """
    found: dict[str, NetworkMaps] = {}
    for name, (first, end) in levels.items():
        network, width = "/".join(name.split("/")[:-2]), end - first
        before = found.get(network, NetworkMaps(0, 0))
        if name.endswith("/std"):
            found[network] = NetworkMaps(before.means, before.deviations + width)
        else:
            found[network] = NetworkMaps(before.means + width, before.deviations)
    return tuple(found.values())
