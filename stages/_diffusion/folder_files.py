"""Which model folders there are and which of their files count, told without loading anything.

Folders have diffusers' layout: ``unet/ vae/ scheduler/``, our ``controller/``, the null prompt.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from diffvqa.stages._diffusion.hub import hub_folder, is_hub_id
from diffvqa.stages._diffusion.null_prompt import NULL_PROMPT_FILE, null_prompt_file
from diffvqa.stages._diffusion.schedule import SCHEDULER_FILE, read_betas
from diffvqa.stages._diffusion.weight_files import CONFIG_FILE, read_config, weight_files
from diffvqa.stages._errors import ModelFolderError

LOSSLESS_AUTOENCODER = "PixelUnshuffleAutoencoder"
"""Class, in ``vae/config.json``, of the autoencoder that has learned nothing."""


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
    files = _files_that_count(folder) if controller else files_of_base(folder)
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def has_controller(folder: Path) -> bool:
    """Tell whether a model folder has been adapted."""
    return (folder / "controller" / CONFIG_FILE).is_file()


def _files_that_count(folder: Path) -> dict[str, Path]:
    """Return name -> file of all that features come from."""
    require_controller(folder, start_controller=False)
    return files_of_base(folder) | _files_of_network(folder, "controller")


def files_of_base(folder: Path) -> dict[str, Path]:
    """Return name -> file of all that features come from, the Controller aside.

    Raises:
        ModelFolderError: A part is missing.
    """
    files = {
        f"scheduler/{SCHEDULER_FILE}": folder / "scheduler" / SCHEDULER_FILE,
        NULL_PROMPT_FILE: null_prompt_file(folder),
    }
    read_betas(folder / "scheduler")
    files |= _files_of_network(folder, "unet")
    if read_config(folder / "vae").get("_class_name") == LOSSLESS_AUTOENCODER:
        return files | {f"vae/{CONFIG_FILE}": folder / "vae" / CONFIG_FILE}
    return files | _files_of_network(folder, "vae")


def _files_of_network(folder: Path, part: str) -> dict[str, Path]:
    read_config(folder / part)
    return {f"{part}/{path.name}": path for path in (folder / part / CONFIG_FILE, *weight_files(folder / part))}


def require_controller(folder: Path, *, start_controller: bool) -> None:
    """Refuse a folder without a Controller, unless one is to be started.

    Raises:
        ModelFolderError: There is none.
    """
    if not start_controller and not has_controller(folder):
        raise ModelFolderError(
            f"{folder} has no Controller: controller/{CONFIG_FILE} is missing.",
            f"Train one with 'diffvqa adapt --model {folder}', or take over official weights with "
            f"'diffvqa import-controller CHECKPOINT --base {folder}'.",
        )
