"""``diffvqa adapt``: teach a diffusion model's Controller to reconstruct the very pictures that it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffvqa.pipeline import _denoiser_fit as denoiser_fit
from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from rich.table import Table

    from diffvqa.stages._denoiser_training.pictures import TrainingPictures
    from diffvqa.stages._denoiser_training.recipe import AdaptRecipe, DenoiserRecipe
    from diffvqa.stages._denoiser_training.reconstruction_quality import ReconstructionQuality
    from diffvqa.stages._diffusion.model import DiffusionModel

QUALITY_FILE = "reconstruction.json"
GRID_FILE = "reconstruction.png"


@dataclass(frozen=True)
class AdaptSummary(denoiser_fit.FitSummary):
    """What was adapted; the journal has the qualities and the picture grid too.

    Attributes:
        without: Quality of reconstruction without the Controller, of held-out pictures as they are and degraded.
        adapted: With it.
    """

    without: dict[str, ReconstructionQuality]
    adapted: dict[str, ReconstructionQuality]


def adapt(
    pictures: Sequence[Path],
    model: str,
    recipe: DenoiserRecipe,
    place: denoiser_fit.FitPlace,
    *,
    out: Path | None = None,
) -> AdaptSummary:
    """Train the Controller of a diffusion model; its U-Net and its autoencoder stay as they are.

    A Controller that the model has already is trained further; else one starts that changes nothing. An interrupted
    training goes on where it was, as long as recipe, pictures and model are the same.

    Args:
        pictures: Folders and files of photographs and videos.
        model: Model folder, or the name of a shipped one.
        recipe: Of which ``adapt`` counts.
        place: Where and how long.
        out: Model folder to write; the model itself when None, which then gets the Controller.

    Raises:
        ConfigError: A shipped model cannot be written to, or the crops do not fit the model.
        DatasetError: There are no pictures.
        TrainingDataError: They are too small.
        TrainingStateError: Another training lies there.
        ModelFolderError: The model cannot be loaded.
        OutputError: The folder cannot be written.
    """
    from diffvqa.stages._denoiser_training.objective import controller_denoising
    from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
    from diffvqa.stages._diffusion.model_folder import load_model_folder, save_adapted

    base = locate_model_folder(model)
    target = _target(out, base, model)
    loaded = load_model_folder(base, start_controller=True).to(denoiser_fit.prepare_device(place))
    denoiser_fit.require_fitting_crops(loaded, recipe.adapt)
    shown = denoiser_fit.read_training_pictures(pictures, recipe.adapt, place)
    journal = denoiser_fit.journal_folder(target) / "adapt"
    outcome = denoiser_fit.fit_with_journal(
        controller_denoising(loaded),
        shown,
        recipe.adapt,
        place,
        folder=journal,
        origin={"model": hash_model_folder(base, controller=False)},
    )
    if denoiser_fit.is_main_process():
        save_adapted(loaded.controller, base, target, half=True)
    without, adapted = _measure(loaded, shown, recipe.adapt, journal)
    return AdaptSummary(target, journal, outcome, without, adapted)


def _measure(
    model: DiffusionModel, pictures: TrainingPictures, recipe: AdaptRecipe, journal: Path
) -> tuple[dict[str, ReconstructionQuality], dict[str, ReconstructionQuality]]:
    """Reconstruct held-out pictures without the Controller and with it, and keep figures and a picture grid."""
    from diffvqa.cache._atomic import atomic_write_text
    from diffvqa.stages._denoiser_training.reconstruction_quality import (
        grid_rows,
        held_out_views,
        qualities,
        reconstruct_views,
    )
    from diffvqa.stages._diffusion.controller import Controller
    from diffvqa.stages._json_values import without_nan
    from diffvqa.stages._picture_files import save_picture
    from diffvqa.stages._side_by_side import picture_grid

    views = held_out_views(pictures, recipe)
    idle = Controller.from_unet(model.unet, conditioning_channels=model.autoencoder.latent_channels)
    without = qualities(reconstruct_views(replace(model, controller=idle.to(model.unet.device)), views, recipe))
    reconstructions = reconstruct_views(model, views, recipe)
    adapted = qualities(reconstructions)
    if denoiser_fit.is_main_process():
        figures = {
            "steps": recipe.reconstruct_steps,
            "start_timestep": recipe.reconstruct_start,
            "pictures": len(next(iter(views.values()))),
            "without_controller": {kind: asdict(each) for kind, each in without.items()},
            "adapted": {kind: asdict(each) for kind, each in adapted.items()},
        }
        atomic_write_text(journal / QUALITY_FILE, json.dumps(without_nan(figures), indent=2, allow_nan=False) + "\n")
        save_picture(journal / GRID_FILE, picture_grid(grid_rows(reconstructions)))
    return without, adapted


def _target(out: Path | None, base: Path, model: str) -> Path:
    from diffvqa.pipeline._errors import ConfigError

    if out is None and base != Path(model):
        raise ConfigError(f"The shipped model '{model}' is not written to.", "Give --out FOLDER.")
    return base if out is None else out


def quality_table(summary: AdaptSummary, recipe: AdaptRecipe) -> Table:
    """Return the table of how well held-out pictures are reconstructed, without the Controller and with it."""
    from rich.table import Table

    steps, start = recipe.reconstruct_steps, recipe.reconstruct_start
    table = Table(title=f"held-out pictures, {steps} steps from t = {start}", title_justify="left")
    table.add_column("shown")
    for heading in ("PSNR without", "PSNR adapted", "SSIM without", "SSIM adapted"):
        table.add_column(heading, justify="right")
    for kind, adapted in summary.adapted.items():
        without = summary.without[kind]
        psnr, ssim = (f"{without.psnr:.2f}", f"{adapted.psnr:.2f}"), (f"{without.ssim:.3f}", f"{adapted.ssim:.3f}")
        table.add_row(kind.replace("_", " "), *psnr, *ssim)
    return table


def command(
    pictures: denoiser_fit.Pictures,
    model: Annotated[str, typer.Option("--model", help="Model folder, or a shipped one's name.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Model folder to write (default: the model itself).", show_default=False),
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
    """Teach a model's Controller to reconstruct the pictures it is shown, degraded ones as degraded."""
    from diffvqa.pipeline._console import tell

    recipe = denoiser_fit.resolve_recipe(config, assignments, show=show_config)
    place = denoiser_fit.FitPlace(device, workers, threads, accumulate, max_minutes, overwrite)
    summary = adapt(pictures, model, recipe, place, out=out)
    if not denoiser_fit.is_main_process():
        return
    tell(quality_table(summary, recipe.adapt))
    denoiser_fit.tell_outcome(summary, recipe.adapt)
    tell(f"model: {summary.model}")
    tell(f"next: diffvqa reconstruct VIDEO --model {summary.model}")
