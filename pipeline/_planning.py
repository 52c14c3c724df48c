"""What an extraction will take, from what a probe of it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Stage = Literal["compute", "decode", "write"]

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Probe:
    """What was measured on this machine, and what was counted.

    Attributes:
        videos: Videos that were decoded for it.
        failed: Of these, those that could not be used.
        decode_seconds: Of a decoder, per video.
        view_seconds: Of the device, per view.
        view_flops: Floating-point operations per view; a multiplication with its addition counts as two.
        write_seconds: Of writing a video's features, per video, on this machine's disk.
        device: What computed, such as ``cpu`` or the name of a GPU.
        batch: Views that were computed at once.
        is_extrapolated: Whether many steps were reckoned from one and two.
    """

    videos: int
    failed: int
    decode_seconds: float
    view_seconds: float
    view_flops: float
    write_seconds: float
    device: str
    batch: int
    is_extrapolated: bool

    @property
    def flops_per_second(self) -> float:
        """What the device does in a second."""
        return self.view_flops / self.view_seconds


@dataclass(frozen=True)
class Load:
    """What is to be extracted.

    Attributes:
        videos: How many.
        views: Of each video.
        shard_videos: Videos per shard.
        video_bytes: Of features, per video.
        source_bytes: Of all video files together; 0 when unknown.
    """

    videos: int
    views: int
    shard_videos: int
    video_bytes: int
    source_bytes: int

    @property
    def shards(self) -> int:
        """Units of work, and folders of the cache."""
        return math.ceil(self.videos / self.shard_videos)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the whole cache, but for a few kilobytes per video of rows and index."""
        return self.videos * self.video_bytes


@dataclass(frozen=True)
class Schedule:
    """How long it takes on a number of devices.

    Attributes:
        devices: How many.
        hours: Of each stage, all of them going on side by side.
    """

    devices: int
    hours: dict[Stage, float]

    @property
    def bottleneck(self) -> Stage:
        """The stage that takes longest."""
        return max(self.hours, key=lambda stage: self.hours[stage])

    @property
    def total_hours(self) -> float:
        """The stages overlap, so the longest decides."""
        return max(self.hours.values())


def schedules(load: Load, probe: Probe, *, devices: Sequence[int], decoders: int) -> tuple[Schedule, ...]:
    """Return how long an extraction takes on each number of devices.

    A device does whole units, so with few units the last ones leave devices idle: hours are those of the device that
    has most to do. Each device's worker writes its own shards.

    Args:
        load: What is to be extracted.
        probe: What was measured.
        devices: Numbers of devices, each like the one that was measured.
        decoders: Decode workers beside each device.
    """
    plans = []
    for count in devices:
        videos = min(load.videos, math.ceil(load.shards / count) * load.shard_videos)
        seconds: dict[Stage, float] = {
            "compute": videos * load.views * probe.view_seconds,
            "decode": videos * probe.decode_seconds / decoders,
            "write": videos * probe.write_seconds,
        }
        plans.append(Schedule(count, {stage: each / _SECONDS_PER_HOUR for stage, each in seconds.items()}))
    return tuple(plans)
