"""``diffvqa import-controller``: make a model folder from an official checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffvqa.pipeline import _options as options


def import_controller(checkpoint: Path, out: Path, *, base: str | None = None, half: bool = False) -> None:
    """Write a model folder with the Controller of a checkpoint that has the original code's names.

    No value is changed, and nothing in the checkpoint is run.

    Args:
        checkpoint: ``.safetensors``, or ``.ckpt`` as ``torch.save`` writes it.
        out: The model folder to write; the base model's own folder to give it this Controller.
        base: The U-Net, autoencoder and text condition: a folder, a shipped model's name or a hub id. Without it they
            too are taken from the checkpoint.
        half: Store what comes from the checkpoint as float16.

    Raises:
        CheckpointError: It holds no Controller, or no base model and none is given; or it is more than tensors.
        ModelFolderError: The Controller does not fit the base model, or ``out`` already has one.
        OutputError: ``out`` cannot be written to.
    """
    from diffvqa.stages._diffusion.folder_files import has_controller, locate_model_folder
    from diffvqa.stages._diffusion.ldm_base import convert_whole_model
    from diffvqa.stages._diffusion.ldm_checkpoint import convert_controller, open_checkpoint
    from diffvqa.stages._diffusion.model_family import require_supported_family
    from diffvqa.stages._diffusion.model_folder import save_adapted
    from diffvqa.stages._diffusion.weight_files import read_config
    from diffvqa.stages._errors import ModelFolderError

    if has_controller(out):
        raise ModelFolderError(f"{out} already has a Controller.", "Choose another folder for --out, or remove it.")
    tensors = open_checkpoint(checkpoint)
    if base is None:
        convert_whole_model(tensors, str(checkpoint)).save(out, half=half)
        return
    folder = locate_model_folder(base)
    require_supported_family(folder)
    controller = convert_controller(tensors, read_config(folder / "unet"), str(checkpoint))
    save_adapted(controller, folder, out, half=half)


def command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint file, .ckpt or .safetensors.", show_default=False, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The model folder to write.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="Folder or hub id of the Stable Diffusion it was made for (default: the one in the checkpoint).",
            show_default=False,
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store as float16, half the size.")] = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Make a model folder from an official checkpoint of DiffVQA or DiffBIR."""
    from diffvqa.pipeline._console import tell

    import_controller(checkpoint, out, base=base, half=half)
    tell(f"model: {out}")
    tell(f"see whether it reconstructs: diffvqa reconstruct VIDEO --model {out}")
    tell(f"use it with: diffvqa extract NAME --model {out}")
