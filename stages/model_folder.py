"""Diffusion models as folders in diffusers' layout: ``unet/ vae/ scheduler/``, our ``controller/``, the null prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffvqa.stages.autoencoder import PixelUnshuffleAutoencoder
from diffvqa.stages.controller import Controller
from diffvqa.stages.errors import ModelFolderError

NULL_PROMPT_FILE = "null_prompt.safetensors"
_PARTS = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "controller/config.json")


@dataclass(frozen=True)
class DiffusionModel:
    """A latent diffusion model with its Controller.

    Attributes:
        unet: The denoising network, epsilon prediction.
        controller: The Controller that conditions it on z_0.
        autoencoder: Between frames and latents.
        scheduler: The noise schedule (alpha-bar) and the DDPM step.
        null_prompt: (1, tokens, width) float32, the text condition, always that of the empty prompt.
    """

    unet: UNet2DConditionModel
    controller: Controller
    autoencoder: PixelUnshuffleAutoencoder
    scheduler: DDPMScheduler
    null_prompt: Tensor

    @property
    def frame_multiple(self) -> int:
        """A frame's sides must be multiples of this many pixels, so that every level of the U-Net fits."""
        levels = len(self.unet.config.block_out_channels)
        return int(self.autoencoder.block_size * 2 ** (levels - 1))

    def predict_noise(self, z_t: Tensor, t: Tensor, z_0: Tensor) -> Tensor:
        """Return the controlled prediction eps_theta(z_t, t, z_0).

        Args:
            z_t: (B, C, h, w) float, the noised latents.
            t: (B,) int64, timesteps in [0, 1000).
            z_0: (B, C, h, w) float, the clean latents that the Controller sees.

        Returns:
            (B, C, h, w) float, the noise that was predicted.
        """
        condition = self.null_prompt.expand(z_t.shape[0], -1, -1)
        skips, middle = self.controller(z_t, t, condition, controlnet_cond=z_0, return_dict=False)
        predicted: Tensor = self.unet(
            z_t,
            t,
            condition,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return predicted

    def to(self, device: torch.device) -> DiffusionModel:
        """Return the model with every tensor on ``device``; the networks are moved in place."""
        self.unet.to(device)
        self.controller.to(device)
        return DiffusionModel(self.unet, self.controller, self.autoencoder, self.scheduler, self.null_prompt.to(device))

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write the model as a folder that :func:`load_model_folder` reads.

        Args:
            folder: Where to; made if absent.
            half: Store the weights as float16, half the size.
        """
        for network, name in ((self.unet, "unet"), (self.controller, "controller")):
            network.save_pretrained(folder / name)
            if half:
                weights = folder / name / SAFETENSORS_WEIGHTS_NAME
                halved = {key: tensor.half() for key, tensor in load_file(weights).items()}
                save_file(halved, weights, metadata={"format": "pt"})
        self.autoencoder.save_config(folder / "vae")
        self.scheduler.save_pretrained(folder / "scheduler")
        save_file({"null_prompt": self.null_prompt.cpu().contiguous()}, folder / NULL_PROMPT_FILE)


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
