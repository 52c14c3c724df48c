"""From a video file to its views; what a decode worker does for one video.

What only a decoding process needs is imported where it is used: workers are killed and replaced, and must start fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.stages._failures import FailureReason, VideoUnusableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from diffvqa.cache._schema import SourceStamp
    from diffvqa.stages._decoders.reader import FrameReader
    from diffvqa.stages._decoders.video_index import VideoIndex
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._frames import Slot
    from diffvqa.stages._sampling import Sampling


@dataclass(frozen=True)
class VideoSource:
    """A video to be decoded.

    Attributes:
        video_id: Its key.
        location: Of its file: a path of this machine, or a URL.
        seed_key: What its crops and noise are seeded from, in the video id's place; None for the id itself.
    """

    video_id: str
    location: Path | str
    seed_key: str | None = None

    @property
    def path(self) -> Path:
        """Its file on this machine; a video at a URL has one only while it is decoded."""
        return Path(self.location)

    def seeded_by(self) -> str:
        """Return what stands for this video when seeds are derived."""
        return self.video_id if self.seed_key is None else self.seed_key


@dataclass(frozen=True)
class DecodedVideo:
    """The views of one video.

    Attributes:
        source: Which video.
        resize: (F, S, S, 3) uint8 RGB, whole frames.
        crop: (F, K, S, S, 3) uint8 RGB, native-resolution crops.
        frame_indices: (F,) int64, in presentation order.
        timestamps: (F,) float64, seconds since the first frame.
        crop_positions: (K, 2) int64, (top, left) in pixels.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        decoder: Name and version.
        frame_rate: Mean frames per second of the file.
        duration: Of the file's video, in seconds.
        substitutions: (asked for, used instead), as indices: frames that could not be decoded, and their neighbours.
        note: Empty, or what is unusual about the file.
        stamp: Of the file as it was fetched; None for a file of this machine.
    """

    source: VideoSource
    resize: NDArray[np.uint8]
    crop: NDArray[np.uint8]
    frame_indices: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    crop_positions: NDArray[np.int64]
    height: int
    width: int
    decoder: str
    frame_rate: float = 0.0
    duration: float = 0.0
    substitutions: tuple[tuple[int, int], ...] = ()
    note: str = ""
    stamp: SourceStamp | None = None


@dataclass(frozen=True)
class FailedVideo:
    """A video that cannot be used.

    Attributes:
        source: Which video.
        reason: The kind of failure.
        detail: One line, the decoder's own words where it had any.
        stamp: Of the file as it was fetched; None for a file of this machine, or where nobody got as far.
    """

    source: VideoSource
    reason: FailureReason
    detail: str
    stamp: SourceStamp | None = None


_KEY_FRAMES_TRIED = 2
_ROUNDING = 1e-9


def decode_video(source: VideoSource, recipe: ExtractRecipe | Sampling) -> DecodedVideo:
    """Sample a video's frames and cut their views; no more than one full frame is held at a time.

    Raises:
        VideoUnusableError: The video is missing, unreadable, too short, or too much of it is damaged.
        MemoryError: There is not enough memory for it.
    """
    from diffvqa.stages._decoders.choice import readers_for
    from diffvqa.stages._decoders.reader import DecoderUnfitError
    from diffvqa.stages._decoders.video_index import index_video
    from diffvqa.stages._frames import sample_slots

    index = index_video(source.path)
    frames = len(index.times.starts)
    if frames < recipe.min_frames:
        raise VideoUnusableError(FailureReason.TOO_SHORT, f"it has {frames} frames, {recipe.min_frames} are wanted")
    slots = sample_slots(index.times, frames=recipe.frames, frames_per_second=recipe.frames_per_second)
    unfit = ""
    for open_reader in readers_for(recipe.decoder):
        try:
            with open_reader(source.path, index) as reader:
                return _ViewsInTheMaking(source, recipe, index, slots).take(reader)
        except DecoderUnfitError as error:
            unfit = error.detail
    raise VideoUnusableError(FailureReason.UNREADABLE, unfit)


class _ViewsInTheMaking:
    """The views of a video in the making."""

    def __init__(
        self, source: VideoSource, recipe: ExtractRecipe | Sampling, index: VideoIndex, slots: Sequence[Slot]
    ) -> None:
        self._source = source
        self._recipe = recipe
        self._index = index
        self._slots = slots
        self._resized: list[NDArray[np.uint8]] = []
        self._crops: list[NDArray[np.uint8]] = []
        self._taken: list[int] = []
        self._substitutions: list[tuple[int, int]] = []
        self._damage = index.complaints

    def take(self, reader: FrameReader) -> DecodedVideo:
        for slot in self._slots:
            self._fill(slot, reader)
        self._require_enough_good_frames()
        return self._decoded(reader.decoder)

    def _fill(self, slot: Slot, reader: FrameReader) -> None:
        """Take the slot's frame, or else one that begins in its stretch of time, or else none."""
        from diffvqa.stages._decoders.reader import FrameDamagedError

        if slot.index is None:
            return
        candidates = [slot.index]
        tried: set[int] = set()
        while candidates:
            candidate = candidates.pop(0)
            tried.add(candidate)
            try:
                frame = reader.read(candidate)
            except FrameDamagedError as error:
                self._damage = self._damage or error.detail
                if candidate == slot.index:
                    candidates = self._stand_ins(slot, error.last_good)
                continue
            self._add(candidate, frame)
            if candidate != slot.index:
                self._substitutions.append((slot.index, candidate))
            return

    def _stand_ins(self, slot: Slot, last_good: int | None) -> list[int]:
        """Return the frames of the slot's stretch that are likely whole: the last good one, and the next key frames."""
        assert slot.index is not None  # noqa: S101  # only a frame that exists can be found damaged
        begin, end = slot.stand_ins
        before = [last_good] if last_good is not None and begin <= last_good < slot.index else []
        is_key = set(self._index.key_packets.tolist())
        after = [i for i in range(max(begin, slot.index + 1), end) if int(self._index.packets[i]) in is_key]
        return before + after[:_KEY_FRAMES_TRIED]

    def _add(self, index: int, frame: NDArray[np.uint8]) -> None:
        from diffvqa.stages._views import crop_views, place_crops, resize_view

        if not self._taken:
            self._height, self._width = frame.shape[:2]
            self._placement = place_crops(
                self._source.seeded_by(),
                self._height,
                self._width,
                crops=self._recipe.crops,
                view_size=self._recipe.view_size,
                seed=self._recipe.seed,
            )
        self._taken.append(index)
        self._resized.append(resize_view(frame, self._recipe.view_size))
        self._crops.append(crop_views(frame, self._placement))

    def _require_enough_good_frames(self) -> None:
        good, wanted = len(self._taken), len(self._slots)
        if good == 0:
            raise VideoUnusableError(FailureReason.UNREADABLE, f"no frame can be decoded\n{self._damage}")
        if good < self._recipe.good_frames * wanted - _ROUNDING:
            raise VideoUnusableError(FailureReason.TRUNCATED, f"{good} of {wanted} frames\n{self._damage}")

    def _decoded(self, decoder: str) -> DecodedVideo:
        import numpy as np

        indices = np.array(self._taken, dtype=np.int64)
        return DecodedVideo(
            source=self._source,
            resize=np.stack(self._resized),
            crop=np.stack(self._crops),
            frame_indices=indices,
            timestamps=self._index.times.starts[indices],
            crop_positions=self._placement.positions,
            height=self._height,
            width=self._width,
            decoder=decoder,
            frame_rate=self._index.frame_rate,
            duration=self._index.times.end,
            substitutions=tuple(self._substitutions),
            note=self._note(),
        )

    def _note(self) -> str:
        good, wanted = len(self._taken), len(self._slots)
        if good < wanted or self._index.times.promised_end is not None:
            return f"{FailureReason.TRUNCATED}: {good} of {wanted} frames"
        if self._substitutions:
            return f"substituted: {len(self._substitutions)} of {wanted} frames"
        return ""


def in_one_line(message: str, *, longest: int = 300) -> str:
    """Return a decoder's message without source positions, addresses and line breaks, cut to ``longest`` characters."""
    without_positions = re.sub(r"(\[\d\d:\d\d:\d\d\] )?\S*/src/\S+\.cc:\d+: ", "", message)
    without_addresses = re.sub(r" @ 0x[0-9a-f]+", "", without_positions)
    line = "; ".join(part.strip() for part in without_addresses.splitlines() if part.strip())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
