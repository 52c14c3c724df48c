"""Which model folders can be used: the U-Nets of Stable Diffusion 1.x and 2.x and their kin, the others by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffvqa.stages._diffusion.weight_files import read_config, read_json
from diffvqa.stages._errors import ModelFolderError

_BY_PIPELINE = {
    "StableDiffusionXLImg2ImgPipeline": "a Stable Diffusion XL refiner",
    "StableDiffusionXL": "Stable Diffusion XL",
    "Inpaint": "an inpainting model",
    "Upscale": "an upscaling model",
    "Depth2Img": "a depth-to-image model",
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
}
_BY_CHANNELS = {
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an image-editing model",
    9: "an inpainting model",
}


def require_supported_family(folder: Path) -> None:
    """Check from its configurations that a folder holds a text-to-image U-Net, the kind that can be adapted.

    Raises:
        ModelFolderError: It holds another kind, which the message names, or no model at all.
    """
    family = _other_family(folder)
    if family:
        raise ModelFolderError(
            f"{folder} holds {family}, which cannot be used.",
            "Use a text-to-image model of the Stable Diffusion 1.x or 2.x family.",
        )


def _other_family(folder: Path) -> str | None:
    index = folder / "model_index.json"
    if index.is_file():
        pipeline = str(read_json(index).get("_class_name", ""))
        named = next((family for part, family in _BY_PIPELINE.items() if part in pipeline), None)
        if named:
            return named
    if (folder / "transformer").is_dir() and not (folder / "unet").is_dir():
        return "a diffusion transformer"
    return _family_of_unet(read_config(folder / "unet"))


def _family_of_unet(config: Mapping[str, Any]) -> str | None:
    if config.get("addition_embed_type") == "text_time":
        return "a Stable Diffusion XL refiner" if config.get("cross_attention_dim") == 1280 else "Stable Diffusion XL"
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        return "a class-conditional model"
    taken, given = config.get("in_channels"), config.get("out_channels")
    if taken == given:
        return None
    return _BY_CHANNELS.get(int(taken or 0), f"a U-Net that takes {taken} channels and gives {given}")
