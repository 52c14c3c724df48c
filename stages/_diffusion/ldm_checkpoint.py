"""Checkpoints with the names of the original latent diffusion code: opened without running code, and converted.

The official Controllers are such: ``control_model.*``, its first convolution over concat(z_t, z_0).
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.weights import empty_network, require_fitting
from diffvqa.stages._errors import CheckpointError

_WRAPPERS = ("state_dict", "model", "module")
_CONTROLLER_MARK = "zero_convs.0.0.weight"
_FIRST_CONVOLUTION = "input_blocks.0.0.weight"
_FORBIDDEN = re.compile(r"unsupported (?:global: global|global|class) (\S+)", re.IGNORECASE)


def open_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names; those of a large file stay on the disk until they are used.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote: a state dict, or a dict that holds one.

    Raises:
        CheckpointError: The file cannot be read, holds no tensors, or could run code when opened, and so is not.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.", "Give the path of a checkpoint.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _load_pickled(path)
    except pickle.UnpicklingError as error:
        found = _FORBIDDEN.search(str(error))
        raise CheckpointError(
            f"{path} holds more than tensors ({found[1] if found else 'a pickle that is no state dict'}) and could run "
            "code when opened, so it was not.",
            "Save its state_dict alone, as safetensors, with the program that made it.",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path} is no checkpoint that can be read: {first_line}", "Fetch it anew.") from error
    tensors = _unwrapped(content)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors.", "Give the checkpoint of a model.")
    return tensors


def tensors_below(tensors: Mapping[str, Tensor], mark: str, preferred: str) -> dict[str, Tensor]:
    """Return the tensors of one network, without their common prefix; nothing where there is no such network.

    Args:
        tensors: Of a whole checkpoint.
        mark: A name that the network has for certain, such as ``zero_convs.0.0.weight``.
        preferred: The prefix to take where several copies are there, such as ``control_model.``.
    """
    prefixes = [name.removesuffix(mark) for name in tensors if name == mark or name.endswith(f".{mark}")]
    if not prefixes:
        return {}
    prefix = min(prefixes, key=lambda prefix: (not prefix.endswith(preferred), len(prefix)))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def convert_controller(tensors: Mapping[str, Tensor], unet_config: Mapping[str, Any], where: str) -> Controller:
    """Return the Controller that a checkpoint holds, for the U-Net of the configuration; no value changes.

    Args:
        tensors: From :func:`open_checkpoint`; they become the Controller's, uncopied where that can be.
        unet_config: The configuration of the U-Net that it steers.
        where: The checkpoint, named in messages.

    Raises:
        CheckpointError: It holds no Controller.
        ModelFolderError: A tensor is missing or has another shape than that U-Net asks for; the message names it.
    """
    found = tensors_below(tensors, _CONTROLLER_MARK, "control_model.")
    if not found:
        raise CheckpointError(
            f"{where} holds no Controller: it has no tensor control_model.{_CONTROLLER_MARK}.",
            "Give an official checkpoint of DiffVQA or DiffBIR, or train a Controller with diffvqa adapt.",
        )
    if _FIRST_CONVOLUTION not in found:
        raise CheckpointError(f"{where} is incomplete: {_FIRST_CONVOLUTION} is missing.", "Fetch it anew.")
    channels = int(unet_config["in_channels"])
    taken = found[_FIRST_CONVOLUTION].shape[1]
    if taken != 2 * channels:
        kind = "an ordinary ControlNet" if taken == channels else "a Controller of another model"
        raise CheckpointError(
            f"{where} holds {kind}: its first convolution takes {taken} channels, that of a Controller for this base "
            f"model takes {2 * channels}, for z_t and z_0.",
            "Give an official checkpoint and the base model it was made for, or train a Controller with diffvqa adapt.",
        )
    converted = {
        name: tensor
        for name, tensor in convert_controlnet_checkpoint(found, config=unet_config).items()
        if tensor is not None  # what the converter could not find
    }
    _require_all_used(found, converted, where)
    both = converted["conv_in.weight"]
    converted["conv_in.weight"] = both[:, :channels].contiguous()
    converted["controlnet_cond_embedding.weight"] = both[:, channels:].contiguous()

    unet = empty_network(UNet2DConditionModel, unet_config, "The base model's U-Net")
    with torch.device("meta"):
        controller: Controller = Controller.from_unet(
            unet, conditioning_channels=channels, load_weights_from_unet=False
        )
    require_fitting(controller, converted, where)
    controller.load_state_dict(converted, assign=True)
    controller.eval()
    return controller


def _load_pickled(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written before torch 1.6: not a zip file, cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any) -> dict[str, Tensor]:
    while isinstance(content, dict) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
        if inner is None:
            return {}
        content = inner
    if not isinstance(content, dict):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _require_all_used(found: Mapping[str, Tensor], converted: Mapping[str, Tensor], where: str) -> None:
    used = {id(tensor) for tensor in converted.values()}
    left = [name for name, tensor in found.items() if id(tensor) not in used]
    if left:
        raise CheckpointError(
            f"{where}: the Controller holds {len(left)} tensors that no Stable Diffusion has, such as {left[0]}.",
            "Only Controllers of Stable Diffusion 1.x and 2.x can be imported.",
        )
