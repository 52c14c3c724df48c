"""``diffvqa pretrain``: make a ``nano`` model folder from photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffvqa.pipeline import options


def pretrain(photos: Path, out: Path, *, unet_steps: int, controller_steps: int, seed: int) -> None:
    """Train the small diffusion model on a folder of photographs, then its Controller, and write its folder.

    Args:
        photos: Folder of pictures, searched recursively.
        out: The model folder to write.
        unet_steps: Training steps of the U-Net.
        controller_steps: Training steps of the Controller.
        seed: Of the initial weights, the crops and the noise.

    Raises:
        DatasetError: The folder holds no pictures.
        TrainingDataError: They are too small.
    """
    from diffvqa.pipeline.console import progress
    from diffvqa.pipeline.errors import DatasetError
    from diffvqa.stages.pretraining import PHOTO_SUFFIXES, PretrainSchedule, build_nano
    from diffvqa.stages.pretraining import pretrain as train_networks

    pictures = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if not pictures:
        raise DatasetError(f"{photos} holds no pictures.", f"Known are {', '.join(sorted(PHOTO_SUFFIXES))}.")
    schedule = PretrainSchedule(unet_steps=unet_steps, controller_steps=controller_steps, seed=seed)
    done, total = 0, unet_steps + controller_steps
    with progress("pretrain", total) as report:

        def on_step(network: str, _: int, loss: float) -> None:
            nonlocal done
            done += 1
            report.set(done, total, note=f"{network} loss {loss:.4f}")

        model = train_networks(build_nano(seed), pictures, schedule, on_step)
    model.save(out, half=True)


def command(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The model folder to write.", show_default=False)],
    unet_steps: Annotated[int, typer.Option(min=1, help="Training steps of the U-Net.")] = 4500,
    controller_steps: Annotated[int, typer.Option(min=1, help="Training steps of the Controller.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, crops and noise.")] = 0,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Make a small diffusion model from photographs, as the shipped 'nano' was made."""
    pretrain(photos, out, unet_steps=unet_steps, controller_steps=controller_steps, seed=seed)
    typer.echo(f"model: {out}")
    typer.echo(f"use it with: diffvqa extract NAME --model {out}")
