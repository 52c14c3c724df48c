"""The Controller: a trainable copy of the U-Net's encoder that makes it reconstruct the frame it is shown."""

from __future__ import annotations

import functools
from typing import Any

from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import nn


class Controller(ControlNetModel):  # type: ignore[misc]  # untyped base
    """A ControlNet whose condition is the clean latent z_0 on the latent's own grid.

    Its first convolution sees z_t; a second, zero-initialised one sees z_0 and is added to it, which equals one
    convolution over concat(z_t, z_0). Zero-initialised 1x1 convolutions add its outputs to the U-Net's skips and
    middle, so that before any training the controlled U-Net is the U-Net, bit for bit.

    Being a subclass, it saves and loads whole; the embedding of a patched ``ControlNetModel`` would be lost on loading.
    """

    # diffusers saves and restores the arguments it finds in the signature, hence the wraps.
    @functools.wraps(ControlNetModel.__init__)  # type: ignore[misc]  # untyped base
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        embedding = nn.Conv2d(
            self.config.conditioning_channels, self.config.block_out_channels[0], kernel_size=3, padding=1, bias=False
        )
        nn.init.zeros_(embedding.weight)
        self.controlnet_cond_embedding = embedding
