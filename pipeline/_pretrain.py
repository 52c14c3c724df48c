"""``diffvqa pretrain``: train a small diffusion U-Net on photographs and videos, from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _denoiser_fit as denoiser_fit
from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.stages._denoiser_training.recipe import DenoiserRecipe


@dataclass(frozen=True)
class PretrainSummary(denoiser_fit.FitSummary):
    """What was trained: a model without a Controller."""


def pretrain(
    pictures: Sequence[Path],
    out: Path,
    recipe: DenoiserRecipe,
    place: denoiser_fit.FitPlace,
    *,
    start_from: str | None = None,
) -> PretrainSummary:
    """Train the U-Net of a small diffusion model and write its folder, which has no Controller yet.

    An interrupted training goes on where it was, as long as recipe and pictures are the same.

    Args:
        pictures: Folders and files of photographs and videos.
        out: The model folder to write; the training is kept beside it, in ``<out>-training``.
        recipe: Architecture and training.
        place: Where and how long.
        start_from: A model whose weights to begin with, by path or name, in place of random ones.

    Raises:
        DatasetError: There are no pictures.
        TrainingDataError: They are too small.
        TrainingStateError: Another training lies there.
        ModelFolderError: ``start_from`` cannot be loaded.
        OutputError: The folder cannot be written.
    """
    from diffvqa.stages._denoiser_training.architecture import build_untrained
    from diffvqa.stages._denoiser_training.objective import unet_denoising
    from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
    from diffvqa.stages._diffusion.model_folder import load_model_folder

    device = denoiser_fit.prepare_device(place)
    if start_from is None:
        model = build_untrained(recipe.architecture, recipe.pretrain.seed)
        origin: dict[str, Any] = {"architecture": recipe.architecture.model_dump(mode="json")}
    else:
        folder = locate_model_folder(start_from)
        model, origin = (
            load_model_folder(folder, start_controller=True),
            {"start_from": hash_model_folder(folder, controller=False)},
        )
    denoiser_fit.require_fitting_crops(model, recipe.pretrain)
    loaded = denoiser_fit.read_training_pictures(pictures, recipe.pretrain, place)
    journal = denoiser_fit.journal_folder(out) / "pretrain"
    denoising = unet_denoising(model.to(device))
    outcome = denoiser_fit.fit_with_journal(denoising, loaded, recipe.pretrain, place, folder=journal, origin=origin)
    denoiser_fit.save_without_controller(model, out)
    return PretrainSummary(out, journal, outcome)


def command(
    pictures: denoiser_fit.Pictures,
    out: Annotated[Path, typer.Option("--out", help="The model folder to write.", show_default=False)],
    start_from: Annotated[
        str | None,
        typer.Option("--start-from", metavar="MODEL", help="Begin with this model's weights.", show_default=False),
    ] = None,
    max_minutes: denoiser_fit.MaxMinutes = None,
    accumulate: denoiser_fit.Accumulate = 1,
    threads: denoiser_fit.Threads = None,
    overwrite: denoiser_fit.Overwrite = False,
    device: options.Device = None,
    workers: options.Workers = None,
    config: denoiser_fit.Recipe = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Train a small diffusion model on photographs and videos, as the shipped 'nano' was made."""
    recipe = denoiser_fit.resolve_recipe(config, assignments, show=show_config)
    place = denoiser_fit.FitPlace(device, workers, threads, accumulate, max_minutes, overwrite)
    summary = pretrain(pictures, out, recipe, place, start_from=start_from)
    if not denoiser_fit.is_main_process():
        return
    denoiser_fit.tell_outcome(summary, recipe.pretrain)
    denoiser_fit.tell_next(summary)
