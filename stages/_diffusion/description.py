"""What a model folder holds, told from its configurations and the headers of its weights: nothing is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from diffvqa.stages._diffusion.folder_files import LOSSLESS_AUTOENCODER, has_controller, hash_model_folder
from diffvqa.stages._diffusion.model_family import require_supported_family
from diffvqa.stages._diffusion.schedule import read_betas
from diffvqa.stages._diffusion.weight_files import read_config, stored_tensors

_NETWORKS = ("unet", "controller", "vae")


@dataclass(frozen=True)
class ModelDescription:
    """A model folder in short.

    Attributes:
        kind: In words, by its autoencoder and text condition.
        parameters: Network's folder -> number of parameters; an autoencoder that learned nothing has 0.
        latent_channels: C of a latent, (C, S / b, S / b) for a view of S x S pixels.
        block_size: b, pixels per latent cell and side.
        view_multiple: A view's side must be a multiple of this many pixels.
        up_blocks: Channels of the U-Net's up-blocks' maps, the coarsest first: the levels of ``multiscale``.
        has_controller: Whether it has been adapted; without a Controller it is a base model, not a feature extractor.
        weights_hash: SHA-256 as it goes into the features' fingerprint; None for a base model.
    """

    kind: str
    parameters: dict[str, int]
    latent_channels: int
    block_size: int
    view_multiple: int
    up_blocks: tuple[int, ...]
    has_controller: bool
    weights_hash: str | None


def describe_model_folder(folder: Path) -> ModelDescription:
    """Describe a model folder.

    Raises:
        ModelFolderError: It cannot be used; the message says why.
    """
    require_supported_family(folder)
    read_betas(folder / "scheduler")
    unet, vae = read_config(folder / "unet"), read_config(folder / "vae")
    learned_nothing = vae.get("_class_name") == LOSSLESS_AUTOENCODER
    adapted = has_controller(folder)
    there = [name for name in _NETWORKS if adapted or name != "controller"]
    widths = tuple(int(width) for width in unet["block_out_channels"])
    block_size = int(vae["block_size"]) if learned_nothing else 2 ** (len(vae["block_out_channels"]) - 1)
    return ModelDescription(
        kind=f"lossless blocks of {block_size} x {block_size} pixels" if learned_nothing else _stable_diffusion(unet),
        parameters={name: 0 if name == "vae" and learned_nothing else _parameters(folder / name) for name in there},
        latent_channels=int(unet["in_channels"]),
        block_size=block_size,
        view_multiple=block_size * 2 ** (len(widths) - 1),
        up_blocks=widths[::-1],
        has_controller=adapted,
        weights_hash=hash_model_folder(folder) if adapted else None,
    )


def _parameters(folder: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(folder).values())


def _stable_diffusion(unet: dict[str, object]) -> str:
    return {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}.get(
        int(str(unet.get("cross_attention_dim"))), "variational autoencoder"
    )
