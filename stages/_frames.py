"""Which frames of a video are sampled: those on screen at given times, never every so many indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A frame that begins at a centre is the one on screen there, whatever rounding makes of the two times.
_SAME_INSTANT_S = 1e-6


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a video are shown.

    Attributes:
        starts: (frames,) float64, seconds since the first frame, ascending.
        end: When the last frame ends, in seconds.
        promised_end: When the video would end if its file were whole, in seconds; ``end`` when None.
    """

    starts: NDArray[np.float64]
    end: float
    promised_end: float | None = None


@dataclass(frozen=True)
class Slot:
    """One place in the sample: a stretch of the video's time and the frame that stands for it.

    Attributes:
        index: The frame on screen at the centre of the stretch; None where the file ends before that.
        stand_ins: (first, beyond the last) index of the frames that begin within the stretch.
    """

    index: int | None
    stand_ins: tuple[int, int]


def sample_slots(times: FrameTimes, *, frames: int, frames_per_second: float = 0.0) -> tuple[Slot, ...]:
    """Divide a video's duration into stretches and choose the frame on screen at the centre of each.

    Args:
        times: When the frames are shown.
        frames: Stretches wanted (N), all of one length; the most there may be when a rate is given.
        frames_per_second: Make stretches of this many to the second instead, as long as they are no more than
            ``frames``, where it is over 0. A video too short for one is one stretch.

    Returns:
        At most N slots, in presentation order, each with another frame: one that is on screen at several centres
        fills one slot.
    """
    edges = _edges(times, frames, frames_per_second)
    centres = (edges[:-1] + edges[1:]) / 2 + _SAME_INSTANT_S
    shown = (np.searchsorted(times.starts, centres, side="right") - 1).clip(0)
    bounds = np.searchsorted(times.starts, edges - _SAME_INSTANT_S, side="left")
    slots: list[Slot] = []
    for k, (centre, index) in enumerate(zip(centres, shown.tolist(), strict=True)):
        begun_within = (int(bounds[k]), int(bounds[k + 1]))
        if centre >= times.end:
            slots.append(Slot(None, begun_within))
        elif slots and slots[-1].index == index:
            slots[-1] = Slot(index, (slots[-1].stand_ins[0], begun_within[1]))
        else:
            slots.append(Slot(index, begun_within))
    return tuple(slots)


def _edges(times: FrameTimes, frames: int, frames_per_second: float) -> NDArray[np.float64]:
    begin = times.starts[0]
    duration = (times.end if times.promised_end is None else times.promised_end) - begin
    if frames_per_second > 0:
        whole_stretches = int(duration * frames_per_second * (1 + 1e-9))
        if 1 <= whole_stretches <= frames:
            return np.asarray(begin + np.arange(whole_stretches + 1) / frames_per_second, dtype=np.float64)
        frames = 1 if whole_stretches == 0 else frames
    return np.asarray(begin + np.arange(frames + 1) / frames * duration, dtype=np.float64)
