"""Several backbones as one: their levels one after the other, and the latent of the first that has one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffvqa.stages._backbones.interface import FeatureBackbone, Level, ViewFeatures


@dataclass(frozen=True)
class NamedBackbone:
    """A part of a combination.

    Attributes:
        name: What its levels are named after; no two of a combination are alike.
        backbone: The part.
    """

    name: str
    backbone: FeatureBackbone


class CombinedBackbone:
    """Sees each view with several networks.

    Args:
        parts: At least one, all on one device.
    """

    def __init__(self, parts: Sequence[NamedBackbone]) -> None:
        self._parts = tuple(parts)
        self._latent_from = next(
            (index for index, part in enumerate(parts) if part.backbone.latent_shape is not None), None
        )

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """(C, h, w) of the latent of the first part that has one."""
        return None if self._latent_from is None else self._parts[self._latent_from].backbone.latent_shape

    @property
    def levels(self) -> tuple[Level, ...]:
        """The parts' levels, each after its part's name, such as ``nano/up_blocks.2/std``."""
        return tuple(
            Level(f"{part.name}/{level.name}", level.channels) for part in self._parts for level in part.backbone.levels
        )

    @property
    def view_multiple(self) -> int:
        """A side that is a multiple of this fits every part."""
        return math.lcm(*(part.backbone.view_multiple for part in self._parts))

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Place and kind of each network, such as ``2.efficientnet-lite0``: their order is that of the channels."""
        return {
            f"{place}.{kind}": digest
            for place, part in enumerate(self._parts, start=1)
            for kind, digest in part.backbone.fingerprint.items()
        }

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        """Return the features of some views by every part.

        Args:
            views: (B, S, S, 3) uint8 RGB, on the backbones' device.
            seeds: One per view; every part sees the same.
        """
        features = [part.backbone.extract(views, seeds) for part in self._parts]
        latent = None if self._latent_from is None else features[self._latent_from].latent
        return ViewFeatures(latent, torch.cat([each.multiscale.float() for each in features], dim=1))
