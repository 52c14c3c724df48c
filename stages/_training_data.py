"""What the regressor is fed: cached features of videos, as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from diffvqa.stages._blocks import block_side, cut_into_blocks
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._finiteness import is_finite
from diffvqa.stages._standardisation import ChannelMoments
from diffvqa.stages._texture import LatentTexture, texture_size

_PARTS = ("latent", "multiscale", "frames")
_VIEWS = ("resize", "crop")
_PART_AXES = 3
_EXTRACT_AGAIN = "Extract this video's features again."


@dataclass(frozen=True)
class VideoSample:
    """A video with its label.

    Attributes:
        video_id: Key of its features, unique over all data sets that are trained on together.
        score: Its MOS, on the label's own scale, finite.
        group: The content it shows; videos of one group never stand on both sides of a split.
        dataset: Whose scale the score is on; scores of different data sets are never compared.
    """

    video_id: str
    score: float
    group: str
    dataset: str = ""


class FeatureSource(Protocol):
    """Gives a video's features by its id: F frames, K crops; F may differ between videos.

    The keys and shapes are ``resize/latent`` (F, C, h, w) and ``resize/multiscale`` (F, Cm, g, g) float16,
    ``resize/frames`` (F, S, S, 3) uint8 RGB, and the same under ``crop/`` with a second axis of K. Features of a
    backbone without a latent lack both ``latent``.
    """

    def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one video."""
        ...


@dataclass(frozen=True)
class BranchShape:
    """Shapes of what one frame of a view comes with.

    Attributes:
        latent: (C, h, w) of the latent; None where there is none.
        multiscale: (Cm, g, g) of the decoder's feature maps, brought to one grid.
        frame_size: S, side of the view in pixels.
    """

    latent: tuple[int, int, int] | None
    multiscale: tuple[int, int, int]
    frame_size: int

    @property
    def block_side(self) -> int:
        """s: the latent, or without one F_MS, is fused on a grid of blocks of s x s places."""
        return block_side(*(self.latent or self.multiscale)[1:])

    @property
    def grid(self) -> tuple[int, int]:
        """(h', w') of the blocks."""
        _, height, width = self.latent or self.multiscale
        return height // self.block_side, width // self.block_side

    @property
    def texture(self) -> int | None:
        """Numbers of the latent's texture; None where there is no latent."""
        return None if self.latent is None else texture_size(self.latent)


@dataclass(frozen=True)
class BranchInput:
    """The features of one view; ``...`` is (B, F) for a batch of videos, or (B, K, F) for K crops of each.

    Attributes:
        latent: (..., P, C s s) float, F_Latent cut into P = h' w' blocks; None where the backbone has no latent.
        texture: (..., D) float, the texture of F_Latent; None likewise.
        flat_texture: (..., D) float, that of its flatter half, less that of the whole; None likewise.
        multiscale: (..., g g, Cm) float, F_MS.
        frames: (..., S, S, 3) uint8, RGB.
    """

    latent: Tensor | None
    texture: Tensor | None
    flat_texture: Tensor | None
    multiscale: Tensor
    frames: Tensor

    @classmethod
    def from_maps(
        cls, latent: Tensor | None, multiscale: Tensor, frames: Tensor, *, texture: LatentTexture | None = None
    ) -> BranchInput:
        """Lay out features as the regressor reads them.

        Args:
            latent: (..., C, h, w) float, F_Latent; None where there is none.
            multiscale: (..., Cm, g, g) float, F_MS.
            frames: (..., S, S, 3) uint8, RGB.
            texture: Of the latent, where it is known already.
        """
        maps = cut_into_blocks(multiscale, 1)
        if latent is None:
            return cls(None, None, None, maps, frames.contiguous())
        texture = texture or LatentTexture.of(latent)
        blocks = cut_into_blocks(latent, block_side(*latent.shape[-2:]))
        return cls(blocks, texture.whole, texture.flat, maps, frames.contiguous())

    def parts(self) -> list[Tensor]:
        """Return what there is, in the order of the fields."""
        every = (self.latent, self.texture, self.flat_texture, self.multiscale, self.frames)
        return [part for part in every if part is not None]

    def map(self, change: Callable[[Tensor], Tensor]) -> BranchInput:
        """Return the same with every part changed."""
        return BranchInput.of([change(part) for part in self.parts()])

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> BranchInput:
        """Return what :meth:`parts` was taken from: without a latent and its textures where there are but two."""
        *of_latent, multiscale, frames = parts
        latent, texture, flat_texture = of_latent or (None, None, None)
        return cls(latent, texture, flat_texture, multiscale, frames)


@dataclass(frozen=True)
class VideoBatch:
    """B videos of up to F frames.

    Attributes:
        resize: Of the resized view, leading axes (B, F).
        crop: Of the K crops, leading axes (B, K, F).
        frame_mask: (B, F) bool, False for padding, which stands at the end; every video has a frame.
        kernel_quality: (B, F) float32, what the kernel part is to say of the frames: in training, where its own word
            would be of videos it was fitted to; None where it is asked.
    """

    resize: BranchInput
    crop: BranchInput
    frame_mask: Tensor
    kernel_quality: Tensor | None = None


@dataclass(frozen=True)
class BranchMoments:
    """Moments of the inputs of one branch, over all places, frames, crops and videos.

    ``latent`` and ``texture`` may be absent.
    """

    latent: ChannelMoments | None
    texture: ChannelMoments | None
    multiscale: ChannelMoments

    @classmethod
    def of(cls, view: BranchInput, shape: BranchShape) -> BranchMoments:
        """Return the moments of one video's view, any leading axes."""
        latent = texture = None
        if view.latent is not None and shape.latent is not None:
            latent = ChannelMoments.of(view.latent, shape.latent[0])
        if view.texture is not None:
            texture = ChannelMoments.of(view.texture, view.texture.shape[-1])
        return cls(latent, texture, ChannelMoments.of(view.multiscale, shape.multiscale[0]))

    @classmethod
    def combined(cls, moments: Sequence[BranchMoments]) -> BranchMoments:
        """Return the moments of several videos together."""
        latents = [each.latent for each in moments if each.latent is not None]
        textures = [each.texture for each in moments if each.texture is not None]
        return cls(
            ChannelMoments.combined(latents) if latents else None,
            ChannelMoments.combined(textures) if textures else None,
            ChannelMoments.combined([each.multiscale for each in moments]),
        )


@dataclass(frozen=True)
class LoadedVideo:
    """One video's features in memory, in the precision they are stored in.

    Attributes:
        resize: Leading axis (F,).
        crop: Leading axes (K, F).
        resize_shape: Shapes of the resized view.
        crop_shape: Shapes of a crop.
    """

    resize: BranchInput
    crop: BranchInput
    resize_shape: BranchShape
    crop_shape: BranchShape

    @property
    def frames(self) -> int:
        """F, the number of frames."""
        return len(self.resize.frames)

    @property
    def crops(self) -> int:
        """K, the number of crops."""
        return len(self.crop.frames)

    @property
    def size(self) -> int:
        """Bytes it takes up in memory."""
        return sum(part.nbytes for view in (self.resize, self.crop) for part in view.parts())

    def textures(self) -> dict[str, LatentTexture]:
        """Return the textures of the latents of ``resize`` and ``crop``; none where there are no latents."""
        return {
            name: LatentTexture(view.texture, view.flat_texture)
            for name, view in (("resize", self.resize), ("crop", self.crop))
            if view.texture is not None and view.flat_texture is not None
        }

    def moments(self) -> dict[str, BranchMoments]:
        """Return the moments of ``resize`` and ``crop``."""
        return {
            "resize": BranchMoments.of(self.resize, self.resize_shape),
            "crop": BranchMoments.of(self.crop, self.crop_shape),
        }


def load_video(
    arrays: Mapping[str, NDArray[Any]], video_id: str, textures: Mapping[str, LatentTexture] | None = None
) -> LoadedVideo:
    """Check one video's arrays and return them as tensors.

    Args:
        arrays: As a :class:`FeatureSource` gives them.
        video_id: For the message.
        textures: Of the latents of ``resize`` and ``crop``, from :meth:`LoadedVideo.textures`, where the video was
            loaded before; they take longer to make than the arrays to read.

    Raises:
        TrainingDataError: An array is missing, has the wrong shape or holds a value that is not finite.
    """
    has_latent = any(f"{view}/latent" in arrays for view in _VIEWS)
    parts = [part for part in _PARTS if has_latent or part != "latent"]
    missing = [f"{view}/{part}" for view in _VIEWS for part in parts if f"{view}/{part}" not in arrays]
    if missing:
        raise TrainingDataError(f"The features of '{video_id}' lack {', '.join(missing)}.", _EXTRACT_AGAIN)
    # Read once: a feature source may fetch and check an array each time it is asked for.
    arrays = {f"{view}/{part}": arrays[f"{view}/{part}"] for view in _VIEWS for part in parts}
    leading = {view: arrays[f"{view}/{parts[0]}"].shape[:-_PART_AXES] for view in _VIEWS}
    for view in _VIEWS:
        for part in parts:
            _check_array(arrays[f"{view}/{part}"], f"'{view}/{part}' of '{video_id}'", leading[view])
    if len(leading["resize"]) != 1 or len(leading["crop"]) != 2 or leading["resize"] != leading["crop"][:1]:
        raise TrainingDataError(
            f"The features of '{video_id}' have leading axes {leading}; (F,) and (F, K) are expected.", _EXTRACT_AGAIN
        )
    resize, crop = ([_tensor(arrays[f"{view}/{part}"]) for part in parts] for view in _VIEWS)
    return LoadedVideo(
        resize=_laid_out(resize, (textures or {}).get("resize")),
        crop=_laid_out([part.transpose(0, 1) for part in crop], (textures or {}).get("crop")),
        resize_shape=_shape_of(resize),
        crop_shape=_shape_of(crop),
    )


def _laid_out(parts: Sequence[Tensor], texture: LatentTexture | None) -> BranchInput:
    *latent, multiscale, frames = parts
    return BranchInput.from_maps(latent[0] if latent else None, multiscale, frames, texture=texture)


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, copied only where it is not in C order or may not be written to."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def collate(
    videos: Sequence[LoadedVideo],
    crops: Sequence[Sequence[int]],
    device: torch.device,
    kernel_quality: Sequence[Tensor] | None = None,
) -> VideoBatch:
    """Put videos together, padded with zeros to the longest.

    Args:
        videos: B of them, with one shape of features.
        crops: For each video the numbers of the crops to take, equally many for all.
        device: Where the batch is to lie.
        kernel_quality: For each video (F,) float32, where it is known.

    Returns:
        The batch, in the precision that the features are stored in.
    """
    longest = max(video.frames for video in videos)
    mask = torch.tensor([[frame < video.frames for frame in range(longest)] for video in videos])
    whole = [[video.resize] for video in videos]
    chosen = [[_crop(video.crop, number) for number in numbers] for video, numbers in zip(videos, crops, strict=True)]
    return VideoBatch(
        resize=_stacked(whole, longest).map(lambda part: _move(part.squeeze(1), device)),
        crop=_stacked(chosen, longest).map(lambda part: _move(part, device)),
        frame_mask=_move(mask, device),
        kernel_quality=None if kernel_quality is None else _move(pad_sequence(list(kernel_quality), True), device),
    )


def _crop(crops: BranchInput, number: int) -> BranchInput:
    return crops.map(lambda part: part[number])


def _stacked(views: Sequence[Sequence[BranchInput]], frames: int) -> BranchInput:
    """Copy each part of B x K views (F, ...) to (B, K, frames, ...), with zeros after a video's last frame."""
    first = views[0][0]
    stacked = []
    for number, example in enumerate(first.parts()):
        # By NumPy, in this thread alone: torch's copies would wake threads that the training step needs.
        target = np.empty((len(views), len(views[0]), frames, *example.shape[1:]), example.numpy().dtype)
        for row, crops in zip(target, views, strict=True):
            for place, crop in zip(row, crops, strict=True):
                part = crop.parts()[number].numpy()
                place[: len(part)] = part
                place[len(part) :] = 0
        stacked.append(torch.from_numpy(target))
    return BranchInput.of(stacked)


def _move(part: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; from pinned memory, so that a GPU computes meanwhile."""
    return part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part.to(device)


def _shape_of(parts: Sequence[Tensor]) -> BranchShape:
    *latent, multiscale, frames = parts
    return BranchShape(_last_three(latent[0]) if latent else None, _last_three(multiscale), frames.shape[-2])


def _last_three(maps: Tensor) -> tuple[int, int, int]:
    channels, height, width = maps.shape[-_PART_AXES:]
    return channels, height, width


def _check_array(array: NDArray[Any], name: str, leading: tuple[int, ...]) -> None:
    if array.ndim != len(leading) + _PART_AXES or array.shape[: len(leading)] != leading or 0 in array.shape:
        raise TrainingDataError(f"{name} has the shape {array.shape}; {leading} and 3 axes expected.", _EXTRACT_AGAIN)
    if not is_finite(array):
        raise TrainingDataError(f"{name} holds values that are not finite.", _EXTRACT_AGAIN)
