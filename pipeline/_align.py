"""``diffvqa align``: train a diffusion model's U-Net on, so that its blocks tell what another network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _denoiser_fit as denoiser_fit
from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.stages._denoiser_training.recipe import DenoiserRecipe


@dataclass(frozen=True)
class AlignSummary(denoiser_fit.FitSummary):
    """What was aligned: a model without a Controller."""


def align(
    pictures: Sequence[Path],
    model: str,
    out: Path,
    recipe: DenoiserRecipe,
    place: denoiser_fit.FitPlace,
) -> AlignSummary:
    """Train the U-Net of a diffusion model further, its blocks learning to tell the features of another network.

    The folder that is written has no Controller, as one of the model would not fit the trained U-Net. An interrupted
    training goes on where it was, as long as recipe, pictures, model and teacher are the same.

    Args:
        pictures: Folders and files of photographs and videos.
        model: Model folder to begin with, or the name of a shipped one.
        out: The model folder to write; the training is kept beside it, in ``<out>-training``.
        recipe: Of which ``align`` counts.
        place: Where and how long.

    Raises:
        ConfigError: ``out`` is the model itself, or the crops do not fit the model.
        DatasetError: There are no pictures.
        TrainingDataError: They are too small.
        TrainingStateError: Another training lies there.
        ModelFolderError: The model or the teacher cannot be loaded.
        BackboneError: The teacher is not there, or the crops do not fit it.
        OutputError: The folder cannot be written.
    """
    from diffvqa.pipeline._errors import ConfigError
    from diffvqa.stages._denoiser_training.alignment import aligned_denoising, load_teacher_backbone, teacher_of
    from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
    from diffvqa.stages._diffusion.model_folder import load_model_folder

    base = locate_model_folder(model)
    if out.resolve() == base.resolve():
        raise ConfigError(f"{out} is the model to begin with.", "Give another --out.")
    device = denoiser_fit.prepare_device(place)
    loaded = load_model_folder(base, start_controller=True).to(device)
    denoiser_fit.require_fitting_crops(loaded, recipe.align)
    backbone = load_teacher_backbone(recipe.align, device)
    shown = denoiser_fit.read_training_pictures(pictures, recipe.align, place)
    teacher = teacher_of(backbone, shown, recipe.align, device)
    journal = denoiser_fit.journal_folder(out) / "align"
    outcome = denoiser_fit.fit_with_journal(
        aligned_denoising(loaded, teacher, recipe.align),
        shown,
        recipe.align,
        place,
        folder=journal,
        origin={"model": hash_model_folder(base, controller=False), "teacher": dict(teacher.backbone.fingerprint)},
    )
    denoiser_fit.save_without_controller(loaded, out)
    return AlignSummary(out, journal, outcome)


def command(
    pictures: denoiser_fit.Pictures,
    model: Annotated[str, typer.Option("--model", help="Model folder, or a shipped one's name.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The model folder to write.", show_default=False)],
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
    """Train a model's U-Net further, so that its blocks also tell what a CNN sees in the pictures."""
    recipe = denoiser_fit.resolve_recipe(config, assignments, show=show_config)
    place = denoiser_fit.FitPlace(device, workers, threads, accumulate, max_minutes, overwrite)
    summary = align(pictures, model, out, recipe, place)
    if not denoiser_fit.is_main_process():
        return
    denoiser_fit.tell_outcome(summary, recipe.align)
    denoiser_fit.tell_next(summary)
