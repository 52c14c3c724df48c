"""The network EfficientNet-Lite0 (Tan & Le, 2019; without squeeze-and-excitation, with ReLU6), as feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEM_WIDTH = 32
_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """Some blocks in a row; the first of them sets width and stride.

    Attributes:
        blocks: How many.
        kernel: Side of the depthwise convolutions.
        stride: Of the first block.
        expansion: How many times wider than its input a block is inside.
        width: Channels of the stage's maps.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(blocks=1, kernel=3, stride=1, expansion=1, width=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, width=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, width=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, width=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, width=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, width=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, width=320),
)


class EfficientNetLite0(nn.Module):
    """The convolutional part of EfficientNet-Lite0; parameter names are those of the published weights.

    What only classification needs (``_conv_head``, ``_bn1``, ``_fc``) is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePaddingConv2d(3, _STEM_WIDTH, kernel=3, stride=2)
        self._bn0 = _batch_norm(_STEM_WIDTH)
        blocks, width = [], _STEM_WIDTH
        for stage in STAGES:
            for number in range(stage.blocks):
                blocks.append(InvertedBottleneck(width, stage, stride=1 if number else stage.stride))
                width = stage.width
        self._blocks = nn.ModuleList(blocks)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the maps of every stage.

        Args:
            pictures: (B, 3, H, W) float, normalised.

        Returns:
            One (B, width, h, w) for each of :data:`STAGES`; h and w are H and W over 2, 4, 8, 16, 16, 32 and 32,
            rounded up.
        """
        maps = F.relu6(self._bn0(self._conv_stem(pictures)))
        remaining, of_stages = iter(self._blocks), []
        for stage in STAGES:
            for _ in range(stage.blocks):
                maps = next(remaining)(maps)
            of_stages.append(maps)
        return of_stages


class InvertedBottleneck(nn.Module):
    """MBConv: widen, convolve each channel by itself, narrow; added to its input where the shapes agree.

    Args:
        width_in: Channels of the input.
        stage: That the block belongs to.
        stride: Of its depthwise convolution.
    """

    def __init__(self, width_in: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        inside = width_in * stage.expansion
        self._is_residual = stride == 1 and width_in == stage.width
        if stage.expansion != 1:
            self._expand_conv = SamePaddingConv2d(width_in, inside, kernel=1)
            self._bn0 = _batch_norm(inside)
        self._depthwise_conv = SamePaddingConv2d(inside, inside, kernel=stage.kernel, stride=stride, groups=inside)
        self._bn1 = _batch_norm(inside)
        self._project_conv = SamePaddingConv2d(inside, stage.width, kernel=1)
        self._bn2 = _batch_norm(stage.width)
        self._expands = stage.expansion != 1

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, width, h', w') for (B, width_in, h, w)."""
        inside = F.relu6(self._bn0(self._expand_conv(maps))) if self._expands else maps
        inside = F.relu6(self._bn1(self._depthwise_conv(inside)))
        narrowed: Tensor = self._bn2(self._project_conv(inside))
        return narrowed + maps if self._is_residual else narrowed


class SamePaddingConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's ``same``: what is odd about it goes to the right and below."""

    def __init__(self, width_in: int, width_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width_in, width_out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Return (B, width_out, ceil(h / stride), ceil(w / stride)) for (B, width_in, h, w)."""
        down, right = (self._missing(extent) for extent in input.shape[-2:])
        padded = F.pad(input, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(padded)

    def _missing(self, extent: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-extent // stride) - 1) * stride + kernel - extent, 0)


def normalised(views: Tensor) -> Tensor:
    """Return pictures as the published weights expect them.

    Args:
        views: (B, S, S, 3) uint8 RGB.

    Returns:
        (B, 3, S, S) float32, about -1 to 1.
    """
    return (views.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 128.0


def _batch_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_BATCH_NORM_EPSILON)
