"""Diffusion models as folders in diffusers' layout: ``unet/ vae/ scheduler/``, our ``controller/``, the null prompt."""

from __future__ import annotations

import hashlib
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffvqa.cache._atomic import atomic_output
from diffvqa.stages._diffusion.autoencoder import Autoencoder, PixelUnshuffleAutoencoder, StableDiffusionAutoencoder
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.hub import hub_folder, is_hub_id
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.model_family import require_supported_family
from diffvqa.stages._diffusion.null_prompt import NULL_PROMPT_FILE, null_prompt_file, read_null_prompt
from diffvqa.stages._diffusion.schedule import SCHEDULER_FILE, load_schedule
from diffvqa.stages._diffusion.weights import CONFIG_FILE, load_network, read_config, weight_files, write_network
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


def locate_model_folder(name_or_path: str) -> Path:
    """Return the folder of a shipped model's short name, of a path, or of a hub id, in this order.

    Args:
        name_or_path: Such as ``nano``, ``models/sd21``, ``organisation/model`` or ``organisation/model@revision``. A
            model of the hub is fetched once, and from then on used without asking the hub.

    Raises:
        ModelFolderError: It is none of these; the message lists the short names.
    """
    shipped = shipped_models()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if is_hub_id(name_or_path) and not Path(name_or_path).parent.is_dir():
        return hub_folder(name_or_path)
    raise ModelFolderError(
        f"There is no model '{name_or_path}'.", f"Give a model folder's path or one of: {', '.join(sorted(shipped))}."
    )


def shipped_models() -> dict[str, Path]:
    """Return short name -> folder of the models that come with the package."""
    models = Path(str(resources.files("diffvqa.stages"))) / "models"
    return {folder.name: folder for folder in sorted(models.iterdir()) if (folder / "unet").is_dir()}


def hash_model_folder(folder: Path, *, controller: bool = True) -> str:
    """Return the SHA-256 over the configurations and weights that a model folder's features come from.

    Other files do not count: a model card, the text encoder, a second variant of the weights. The whole content is read
    every time: sizes and dates do not tell two files apart, and a wrong hash would mix features of two models.

    Args:
        folder: The model folder.
        controller: Whether the Controller counts; without it, a folder that has none will do.

    Raises:
        ModelFolderError: A part is missing.
    """
    digest = hashlib.sha256()
    files = _files_that_count(folder) if controller else _files_of_base(folder)
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


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
    _require_controller(folder, start_controller=start_controller)
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


def has_controller(folder: Path) -> bool:
    """Tell whether a model folder has been adapted."""
    return (folder / "controller" / CONFIG_FILE).is_file()


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
        for name, path in _files_of_base(base).items():
            with atomic_output(out / name) as temporary:
                shutil.copyfile(path, temporary)
    write_network(controller, out / "controller", half=half)


def _files_that_count(folder: Path) -> dict[str, Path]:
    """Return name -> file of all that features come from."""
    _require_controller(folder, start_controller=False)
    return _files_of_base(folder) | _files_of_network(folder, "controller")


def _files_of_base(folder: Path) -> dict[str, Path]:
    files = {
        f"scheduler/{SCHEDULER_FILE}": folder / "scheduler" / SCHEDULER_FILE,
        NULL_PROMPT_FILE: null_prompt_file(folder),
    }
    load_schedule(folder / "scheduler")
    files |= _files_of_network(folder, "unet")
    if read_config(folder / "vae").get("_class_name") == PixelUnshuffleAutoencoder.__name__:
        return files | {f"vae/{CONFIG_FILE}": folder / "vae" / CONFIG_FILE}
    return files | _files_of_network(folder, "vae")


def _files_of_network(folder: Path, part: str) -> dict[str, Path]:
    read_config(folder / part)
    return {f"{part}/{path.name}": path for path in (folder / part / CONFIG_FILE, *weight_files(folder / part))}


def _require_controller(folder: Path, *, start_controller: bool) -> None:
    if not start_controller and not has_controller(folder):
        raise ModelFolderError(
            f"{folder} has no Controller: controller/{CONFIG_FILE} is missing.",
            f"Train one with 'diffvqa adapt --model {folder}', or take over official weights with "
            f"'diffvqa import-controller CHECKPOINT --base {folder}'.",
        )


def _load_autoencoder(folder: Path) -> Autoencoder:
    config = read_config(folder)
    if config.get("_class_name") == PixelUnshuffleAutoencoder.__name__:
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
