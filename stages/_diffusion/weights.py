"""A network in its folder: compared with its configuration, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffvqa.cache._atomic import atomic_output, reporting_output_errors
from diffvqa.stages._diffusion.weight_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    StoredTensor,
    read_config,
    stored_tensors,
)
from diffvqa.stages._errors import ModelFolderError


class Shaped(Protocol):
    """A tensor, or what is known of one that still lies in a file."""

    @property
    def shape(self) -> Sequence[int]:
        """Its extents."""


def load_network(network_class: Any, folder: Path) -> Any:
    """Load a network onto the CPU as float32, in evaluation mode; never more than one tensor is held twice.

    Args:
        network_class: diffusers' class of the network.
        folder: With ``config.json`` and safetensors.

    Raises:
        ModelFolderError: The folder is of another class, incomplete or damaged, or a tensor has another shape than the
            configuration says; the message names it.
    """
    config = read_config(folder)
    if config.get("_class_name") != network_class.__name__:
        raise ModelFolderError(
            f"{folder} holds a network of class {config.get('_class_name')}, not {network_class.__name__}.",
            "Only U-Nets of Stable Diffusion 1.x and 2.x and their kin are supported.",
        )
    stored = stored_tensors(folder)
    network = empty_network(network_class, config, str(folder / CONFIG_FILE))
    require_fitting(network, stored, str(folder))
    network.load_state_dict(_read(stored), assign=True)
    return network.eval()


def empty_network(network_class: Any, config: Mapping[str, Any], where: str) -> Any:
    """Return a network of which only names and shapes are there: its tensors are on torch's ``meta`` device.

    Args:
        network_class: diffusers' class of the network.
        config: Its configuration.
        where: The configuration's origin, named in the message.

    Raises:
        ModelFolderError: The configuration describes no such network.
    """
    try:
        with torch.device("meta"):
            return network_class.from_config(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"{where} describes no {network_class.__name__}: {first_line}", "Fetch the model folder anew."
        ) from error


def require_fitting(network: nn.Module, tensors: Mapping[str, Shaped], where: str) -> None:
    """Check that ``tensors`` are those of ``network``, by name and shape.

    Args:
        network: On any device.
        tensors: What is to be loaded into it.
        where: Their origin, named in the message.

    Raises:
        ModelFolderError: One is missing, has another shape, or is unknown to the network.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelFolderError(f"{where}: the weights hold no tensor '{name}'.", _MIXED)
        if tuple(tensors[name].shape) != shape:
            raise ModelFolderError(
                f"{where}: tensor '{name}' has the shape {_in_words(tensors[name].shape)}; "
                f"the network's configuration asks for {_in_words(shape)}.",
                _MIXED,
            )
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise ModelFolderError(
            f"{where}: the network's configuration knows nothing of {len(unknown)} tensors, such as '{unknown[0]}'.",
            _MIXED,
        )


def write_network(network: Any, folder: Path, *, half: bool = False) -> None:
    """Write a network's configuration and weights, each in one step; an older file is replaced.

    Args:
        network: A diffusers network on any device.
        folder: Made if absent.
        half: Store the weights as float16, half the size.

    Raises:
        OutputError: The folder cannot be written to.
    """
    with atomic_output(folder / WEIGHTS_FILE) as temporary:
        write_tensors(network.state_dict(), temporary, half=half)
    with reporting_output_errors(folder / CONFIG_FILE):
        network.save_config(folder)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Write tensors to a safetensors file in the format that diffusers reads.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        name: (tensor.detach().half() if half and tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    with reporting_output_errors(path):
        try:
            save_file(content, path, metadata={"format": "pt"})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


_MIXED = "Configuration and weights come from different models, or one is incomplete."


def _in_words(shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in shape) or "()"


def _read(stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted({tensor.file for tensor in stored.values()}):
        with safe_open(file, framework="pt") as opened:
            for name, tensor in stored.items():
                if tensor.file == file:
                    # A copy: a tensor that lies in a mapped file dies with that file.
                    tensors[name] = opened.get_tensor(tensor.name).to(torch.float32, copy=True)
    return tensors
