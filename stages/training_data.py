"""What the regressor is fed: cached features of videos, held in memory once and put together into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffvqa.stages.errors import TrainingDataError

_PARTS = ("latent", "multiscale", "frames")
_VIEWS = ("resize", "crop")
_PART_AXES = 3
_EXTRACT_AGAIN = "Extract this video's features again."


@dataclass(frozen=True)
class VideoSample:
    """A video with its label.

    Attributes:
        video_id: Key of its features.
        score: Its MOS, on the label's own scale, finite.
        group: The content it shows; videos of one group never stand on both sides of a split.
    """

    video_id: str
    score: float
    group: str


class FeatureSource(Protocol):
    """Gives a video's features by its id: F frames, K crops; F may differ between videos.

    The keys and shapes are ``resize/latent`` (F, C, h, w) and ``resize/multiscale`` (F, Cm, g, g) float16,
    ``resize/frames`` (F, S, S, 3) uint8 RGB, and the same under ``crop/`` with a second axis of K.
    """

    def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one video."""
        ...


@dataclass(frozen=True)
class BranchShape:
    """Shapes of what one frame of a view comes with.

    Attributes:
        latent: (C, h, w) of the latent.
        multiscale: (Cm, g, g) of the decoder's feature maps, brought to one grid.
        frame_size: S, side of the view in pixels.
    """

    latent: tuple[int, int, int]
    multiscale: tuple[int, int, int]
    frame_size: int


@dataclass(frozen=True)
class BranchInput:
    """The features of one view; ``...`` is (B, F) for a batch of videos, or (B, K, F) for K crops of each.

    Attributes:
        latent: (..., C, h, w) float, F_Latent.
        multiscale: (..., Cm, g, g) float, F_MS.
        frames: (..., S, S, 3) uint8, RGB.
    """

    latent: Tensor
    multiscale: Tensor
    frames: Tensor

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three in the order of the fields."""
        return self.latent, self.multiscale, self.frames


@dataclass(frozen=True)
class VideoBatch:
    """B videos of up to F frames.

    Attributes:
        resize: Of the resized view, leading axes (B, F).
        crop: Of the K crops, leading axes (B, K, F).
        frame_mask: (B, F) bool, False for padding, which stands at the end; every video has a frame.
    """

    resize: BranchInput
    crop: BranchInput
    frame_mask: Tensor


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel of an input, (C,) float32 both."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class BranchStatistics:
    """Statistics that the inputs of one branch are standardised with."""

    latent: ChannelStatistics
    multiscale: ChannelStatistics


@dataclass(frozen=True)
class LoadedVideo:
    """One video's features in memory, as they are stored.

    Attributes:
        resize: Leading axis (F,).
        crop: Leading axes (K, F).
    """

    resize: BranchInput
    crop: BranchInput

    @property
    def frames(self) -> int:
        """F, the number of frames."""
        return len(self.resize.latent)

    @property
    def crops(self) -> int:
        """K, the number of crops."""
        return len(self.crop.latent)

    @property
    def resize_shape(self) -> BranchShape:
        """Shapes of the resized view."""
        return _shape_of(self.resize)

    @property
    def crop_shape(self) -> BranchShape:
        """Shapes of a crop."""
        return _shape_of(self.crop)


def load_videos(features: FeatureSource, video_ids: Iterable[str]) -> dict[str, LoadedVideo]:
    """Read the features of every video into memory, in the precision they are stored in.

    Raises:
        TrainingDataError: A video's features are incomplete, not finite, or of another shape than the first one's.
    """
    videos: dict[str, LoadedVideo] = {}
    for video_id in video_ids:
        video = load_video(features[video_id], video_id)
        first = next(iter(videos.values()), video)
        for name in ("resize_shape", "crop_shape", "crops"):
            expected, found = getattr(first, name), getattr(video, name)
            if expected != found:
                raise TrainingDataError(
                    f"The features of '{video_id}' differ from the others: {name} is {found}, not {expected}.",
                    "Use features that were all extracted with one recipe.",
                )
        videos[video_id] = video
    return videos


def load_video(arrays: Mapping[str, NDArray[Any]], video_id: str) -> LoadedVideo:
    """Check one video's arrays and return them as tensors.

    Args:
        arrays: As a :class:`FeatureSource` gives them.
        video_id: For the message.

    Raises:
        TrainingDataError: An array is missing, has the wrong shape or holds a value that is not finite.
    """
    missing = [f"{view}/{part}" for view in _VIEWS for part in _PARTS if f"{view}/{part}" not in arrays]
    if missing:
        raise TrainingDataError(f"The features of '{video_id}' lack {', '.join(missing)}.", _EXTRACT_AGAIN)
    # Read once: a feature source may fetch and check an array each time it is asked for.
    arrays = {f"{view}/{part}": arrays[f"{view}/{part}"] for view in _VIEWS for part in _PARTS}
    leading = {view: arrays[f"{view}/latent"].shape[:-_PART_AXES] for view in _VIEWS}
    for view in _VIEWS:
        for part in _PARTS:
            _check_array(arrays[f"{view}/{part}"], f"'{view}/{part}' of '{video_id}'", leading[view])
    if len(leading["resize"]) != 1 or len(leading["crop"]) != 2 or leading["resize"] != leading["crop"][:1]:
        raise TrainingDataError(
            f"The features of '{video_id}' have leading axes {leading}; (F,) and (F, K) are expected.", _EXTRACT_AGAIN
        )
    resize = (np.array(arrays[f"resize/{part}"]) for part in _PARTS)
    crop = (np.array(arrays[f"crop/{part}"].swapaxes(0, 1), order="C") for part in _PARTS)
    return LoadedVideo(BranchInput(*map(torch.from_numpy, resize)), BranchInput(*map(torch.from_numpy, crop)))


def collate(videos: Sequence[LoadedVideo], crops: Sequence[Sequence[int]], device: torch.device) -> VideoBatch:
    """Put videos together, padded with zeros to the longest.

    Args:
        videos: B of them, with one shape of features.
        crops: For each video the numbers of the crops to take, equally many for all.
        device: Where the batch is to lie.

    Returns:
        The batch, in the precision that the features are stored in.
    """
    longest = max(video.frames for video in videos)
    mask = torch.tensor([[frame < video.frames for frame in range(longest)] for video in videos])
    chosen = [_choose(video.crop, indices) for video, indices in zip(videos, crops, strict=True)]
    return VideoBatch(
        resize=_stack([video.resize for video in videos], longest, device),
        crop=_stack(chosen, longest, device),
        frame_mask=mask.to(device),
    )


def input_statistics(views: Sequence[BranchInput]) -> BranchStatistics:
    """Return the statistics of each channel over all places, frames, crops and videos.

    Args:
        views: The same view of every video of the training part, any leading axes.
    """
    return BranchStatistics(
        latent=_channel_statistics([view.latent for view in views]),
        multiscale=_channel_statistics([view.multiscale for view in views]),
    )


def _channel_statistics(parts: Sequence[Tensor]) -> ChannelStatistics:
    """Combine the moments of each part, so that no part is held in memory in a higher precision than it has."""
    moments = [
        torch.var_mean(part.float().flatten(0, -4).transpose(0, 1).flatten(1), 1, correction=0) for part in parts
    ]
    counts = torch.tensor([part.numel() // part.shape[-3] for part in parts], dtype=torch.float64)
    shares = (counts / counts.sum())[:, None]
    variances, means = (torch.stack(each).double() for each in zip(*moments, strict=True))
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean) ** 2)).sum(0)
    return ChannelStatistics(mean.float(), variance.sqrt().float())


def _choose(crops: BranchInput, indices: Sequence[int]) -> BranchInput:
    return BranchInput(*(part[list(indices)] for part in crops.parts()))


def _stack(views: Sequence[BranchInput], frames: int, device: torch.device) -> BranchInput:
    latent, multiscale, pictures = (
        torch.stack([_pad(part, frames) for part in same])
        for same in zip(*(view.parts() for view in views), strict=True)
    )
    return BranchInput(latent.to(device), multiscale.to(device), pictures.to(device))


def _pad(part: Tensor, frames: int) -> Tensor:
    """Append zeros to the axis of the frames, the fourth from the end."""
    missing = frames - part.shape[-4]
    if missing == 0:
        return part
    return torch.cat([part, part.new_zeros(*part.shape[:-4], missing, *part.shape[-3:])], dim=-4)


def _shape_of(view: BranchInput) -> BranchShape:
    channels, height, width = view.latent.shape[-3:]
    multiscale_channels, multiscale_height, multiscale_width = view.multiscale.shape[-3:]
    return BranchShape(
        latent=(channels, height, width),
        multiscale=(multiscale_channels, multiscale_height, multiscale_width),
        frame_size=view.frames.shape[-2],
    )


def _check_array(array: NDArray[Any], name: str, leading: tuple[int, ...]) -> None:
    if array.ndim != len(leading) + _PART_AXES or array.shape[: len(leading)] != leading or 0 in array.shape:
        raise TrainingDataError(f"{name} has the shape {array.shape}; {leading} and 3 axes expected.", _EXTRACT_AGAIN)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise TrainingDataError(f"{name} holds values that are not finite.", _EXTRACT_AGAIN)
