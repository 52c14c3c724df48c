"""Diffusion models as folders in diffusers' layout: ``unet/ vae/ scheduler/``, our ``controller/``, the null prompt."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors.torch import load_file

from diffvqa.stages.diffusion.autoencoder import PixelUnshuffleAutoencoder
from diffvqa.stages.diffusion.controller import Controller
from diffvqa.stages.diffusion.model import NULL_PROMPT_FILE, DiffusionModel
from diffvqa.stages.errors import ModelFolderError

_PARTS = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "controller/config.json")


def locate_model_folder(name_or_path: str) -> Path:
    """Return the folder of a shipped model's short name, or the path itself.

    Raises:
        ModelFolderError: It is neither; the message lists the short names.
    """
    shipped = Path(str(resources.files("diffvqa.stages"))) / "models"
    if (shipped / name_or_path / "unet").is_dir():
        return shipped / name_or_path
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    known = ", ".join(sorted(folder.name for folder in shipped.iterdir() if (folder / "unet").is_dir()))
    raise ModelFolderError(f"There is no model '{name_or_path}'.", f"Give a model folder's path or one of: {known}.")


def hash_model_folder(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a model folder's weights and configurations.

    Raises:
        ModelFolderError: A part is missing.
    """
    _check_parts(folder)
    digest = hashlib.sha256()
    relevant = (path for path in folder.rglob("*") if path.suffix in {".safetensors", ".json"} and path.is_file())
    for path in sorted(relevant, key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def load_model_folder(folder: Path) -> DiffusionModel:
    """Load a model folder onto the CPU as float32, offline, in evaluation mode.

    Raises:
        ModelFolderError: A part is missing, of a kind that is not supported, or does not fit the others.
    """
    _check_parts(folder)
    autoencoder_class = json.loads((folder / "vae/config.json").read_text()).get("_class_name")
    if autoencoder_class != PixelUnshuffleAutoencoder.__name__:
        raise ModelFolderError(
            f"{folder / 'vae'}: autoencoders of class {autoencoder_class} are not supported yet.",
            f"Use a model folder with a {PixelUnshuffleAutoencoder.__name__}, such as 'nano'.",
        )
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    if scheduler.config.prediction_type != "epsilon":
        raise ModelFolderError(
            f"{folder / 'scheduler'}: prediction type '{scheduler.config.prediction_type}' is not supported.",
            "Use an epsilon-prediction model.",
        )
    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", **_LOADING)
        controller = Controller.from_pretrained(folder / "controller", **_LOADING)
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelFolderError(
            f"{folder}: the weights cannot be loaded: {first_line}", "Make the folder anew."
        ) from error
    model = DiffusionModel(
        unet=unet.eval(),
        controller=controller.eval(),
        autoencoder=PixelUnshuffleAutoencoder.from_config(PixelUnshuffleAutoencoder.load_config(folder / "vae")),
        scheduler=scheduler,
        null_prompt=load_file(folder / NULL_PROMPT_FILE)["null_prompt"],
    )
    taken, given = unet.config.in_channels, model.autoencoder.latent_channels
    if taken != given:
        raise ModelFolderError(
            f"{folder}: unet/ takes {taken} channels, vae/ gives {given}.",
            "The parts come from different models.",
        )
    return model


_LOADING = {
    "local_files_only": True,
    "use_safetensors": True,
    "torch_dtype": torch.float32,
    "low_cpu_mem_usage": False,
}


def _check_parts(folder: Path) -> None:
    for part in (*_PARTS, NULL_PROMPT_FILE):
        if not (folder / part).is_file():
            raise ModelFolderError(f"{folder} is no model folder: {part} is missing.", "Give a complete model folder.")
