"""The files of a network's folder: ``config.json`` and safetensors, found and looked into without loading anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from diffvqa.stages._errors import ModelFolderError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_HALF_WEIGHTS_FILE = "diffusion_pytorch_model.fp16.safetensors"
_INDEX_SUFFIX = ".index.json"
_PICKLED = ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "pytorch_model.bin")

# Autoencoders saved before diffusers 0.17, Stable Diffusion's own among them, name their attention so.
_FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_FORMER_NAME = re.compile(r"(?<=\.attentions\.\d\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_COMPLETE = "Give a complete model folder."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: The safetensors file.
        name: Its name in there; older folders differ from today's networks in some.
        shape: Its shape.
    """

    file: Path
    name: str
    shape: tuple[int, ...]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a network's folder.

    Raises:
        ModelFolderError: There is none, or it is no JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelFolderError(
            f"{folder.parent} is no model folder: {folder.name}/{CONFIG_FILE} is missing.", _COMPLETE
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        ModelFolderError: It cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path} cannot be read: {error}.", "Fetch the model folder anew.") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} is no JSON object.", "Fetch the model folder anew.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a network's folder: one, or the shards of one.

    Full precision is preferred to the ``fp16`` variant where both are there.

    Raises:
        ModelFolderError: There are none, they are pickled, or a shard is missing.
    """
    for name in (WEIGHTS_FILE, _HALF_WEIGHTS_FILE):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / _index_name(name)
        if index.is_file():
            return _shards(index)
    if any((folder / name).is_file() for name in _PICKLED):
        raise ModelFolderError(
            f"{folder} holds its weights as .bin alone, a format that can run code when opened.",
            "If you trust it, convert it once with diffusers: load this folder with "
            "from_pretrained(FOLDER, use_safetensors=False) and save it with save_pretrained(FOLDER).",
        )
    raise ModelFolderError(f"{folder} holds no {WEIGHTS_FILE}.", _COMPLETE)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a network's folder by their present-day names; only the files' headers are read.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    return {_FORMER_NAME.sub(_present_name, tensor.name): tensor for tensor in _headers(weight_files(folder))}


def _index_name(weights: str) -> str:
    """Return the name of a sharded file's index: ``x.safetensors.index.json``, ``x.safetensors.index.fp16.json``."""
    if weights == _HALF_WEIGHTS_FILE:
        return f"{WEIGHTS_FILE}.index.fp16.json"
    return f"{weights}{_INDEX_SUFFIX}"


def _shards(index: Path) -> list[Path]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if not (index.parent / name).is_file():
            raise ModelFolderError(f"{index.parent} is incomplete: {name} is missing.", _COMPLETE)
    return [index.parent / name for name in names]


def _headers(files: list[Path]) -> Iterator[StoredTensor]:
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping
                    yield StoredTensor(file, name, tuple(opened.get_slice(name).get_shape()))
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(f"{file} is damaged: {error}.", "Fetch it anew.") from error


def _present_name(match: re.Match[str]) -> str:
    return _FORMER_NAMES[match[0]]
