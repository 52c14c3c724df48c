"""A cache with what makes exports hard: ragged videos, failures, odd ids, a rewritten video."""

from __future__ import annotations

from pathlib import Path

from cache_material import MOST_FRAMES, failed, fill, usable

from diffvqa.cache._export import FeatureExport, Labels
from diffvqa.cache._reader import FeatureCache

LABELS = Labels(
    scores={"a/ä.mp4": 3.25, "bad": 1.0, "b": None, "one crop": 2.0, "not there": 5.0},
    groups={"one crop": "g"},
    description="MOS (of a test)",
)
IDS = ("a/ä.mp4", "b", "one crop")


def odd_cache(folder: Path) -> FeatureCache:
    fill(folder, usable("a/ä.mp4", frames=2), failed("bad"), usable("b", frames=1), usable("unlabelled"))
    fill(folder, usable("one crop", frames=3, crops=1), usable("b", frames=MOST_FRAMES))
    return FeatureCache(folder)


def odd_export(cache: FeatureCache, *arrays: str, labels: Labels = LABELS) -> FeatureExport:
    return FeatureExport(cache, labels=labels, provenance={"data_set": "d"}, arrays=arrays or None)
