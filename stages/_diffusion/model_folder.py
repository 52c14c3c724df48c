"""Diffusion models loaded from their folders, and folders written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffvqa.cache._atomic import atomic_output
from diffvqa.stages._diffusion.autoencoder import Autoencoder, PixelUnshuffleAutoencoder, StableDiffusionAutoencoder
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.folder_files import (
    LOSSLESS_AUTOENCODER,
    files_of_base,
    has_controller,
    require_controller,
)
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.model_family import require_supported_family
from diffvqa.stages._diffusion.null_prompt import null_prompt_file, read_null_prompt
from diffvqa.stages._diffusion.schedule import load_schedule
from diffvqa.stages._diffusion.weight_files import read_config
from diffvqa.stages._diffusion.weights import load_network, write_network
from diffvqa.stages._errors import ModelFolderError

# Where these differ, a Controller was made for another U-Net.
_SHARED_SETTINGS = (
    "in_channels",
    "down_block_types",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "attention_head_dim",
    "use_linear_projection",
)


def load_model_folder(folder: Path, *, start_controller: bool = False) -> DiffusionModel:
    """Load a model folder onto the CPU as float32, offline, in evaluation mode.

    Args:
        folder: With ``unet/``, ``vae/``, ``scheduler/``, ``controller/`` and the null prompt (or a text encoder and a
            tokenizer to make it with, which is then done once).
        start_controller: Where there is no ``controller/``, start one: a copy of the U-Net's encoder whose say is still
            zero. Without it, such a folder is an error, since its features would be those of an unadapted model.

    Raises:
        ModelFolderError: A part is missing, of a kind that is not supported, or does not fit the others.
    """
    require_supported_family(folder)
    scheduler = load_schedule(folder / "scheduler")
    require_controller(folder, start_controller=start_controller)
    null_prompt = read_null_prompt(null_prompt_file(folder))
    autoencoder = _load_autoencoder(folder / "vae")
    unet = load_network(UNet2DConditionModel, folder / "unet")
    _require_fitting(folder, unet.config.in_channels, autoencoder.latent_channels, "takes {} channels, vae/ gives {}")
    _require_fitting(
        folder,
        unet.config.cross_attention_dim,
        null_prompt.shape[-1],
        "takes a text condition {} wide, the null prompt has {}",
    )
    if has_controller(folder):
        controller = load_network(Controller, folder / "controller")
        _require_fitting_controller(folder, controller.config, unet.config)
    else:
        controller = Controller.from_unet(unet, conditioning_channels=autoencoder.latent_channels).eval()
    return DiffusionModel(unet, controller, autoencoder, scheduler, null_prompt)


def save_adapted(controller: Controller, base: Path, out: Path, *, half: bool = False) -> None:
    """Write a model folder: the parts of ``base``, copied, and a Controller for them.

    Args:
        controller: For the U-Net of ``base``.
        base: A model folder, with or without a Controller of its own.
        out: Made if absent; ``base`` itself to give it this Controller.
        half: Store the Controller as float16.

    Raises:
        ModelFolderError: A part of ``base`` is missing.
        OutputError: ``out`` cannot be written to.
    """
    if base.resolve() != out.resolve():
        for name, path in files_of_base(base).items():
            with atomic_output(out / name) as temporary:
                shutil.copyfile(path, temporary)
    write_network(controller, out / "controller", half=half)


def _load_autoencoder(folder: Path) -> Autoencoder:
    config = read_config(folder)
    if config.get("_class_name") == LOSSLESS_AUTOENCODER:
        autoencoder: Autoencoder = PixelUnshuffleAutoencoder.from_config(config)
        return autoencoder
    unusual = [name for name in ("shift_factor", "latents_mean", "latents_std") if config.get(name) is not None]
    if unusual:
        raise ModelFolderError(
            f"{folder}: autoencoders with {unusual[0]} are not supported.",
            "Use a model of the Stable Diffusion 1.x or 2.x family.",
        )
    return StableDiffusionAutoencoder(load_network(AutoencoderKL, folder))


def _require_fitting(folder: Path, taken: int, given: int, difference: str) -> None:
    if taken != given:
        raise ModelFolderError(
            f"{folder}: unet/ {difference.format(taken, given)}.", "The parts come from different models."
        )


def _require_fitting_controller(folder: Path, controller: Any, unet: Any) -> None:
    for name in _SHARED_SETTINGS:
        ours, theirs = controller.get(name), unet.get(name)
        if (list(ours) if isinstance(ours, tuple) else ours) != (list(theirs) if isinstance(theirs, tuple) else theirs):
            raise ModelFolderError(
                f"{folder}: controller/ was made for another U-Net: its {name} is {ours}, that of unet/ is {theirs}.",
                "Adapt a Controller to this U-Net.",
            )
    if controller.get("conditioning_channels") != unet.get("in_channels"):
        raise ModelFolderError(
            f"{folder}: controller/ takes conditions of {controller.get('conditioning_channels')} channels, "
            f"latents have {unet.get('in_channels')}.",
            "Ordinary ControlNets do not see latents: adapt a Controller.",
        )
