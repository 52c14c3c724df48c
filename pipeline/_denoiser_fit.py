"""What ``pretrain``, ``align`` and ``adapt`` share: settings, pictures, the fit and its journal beside the model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from diffvqa.stages._denoiser_training.fit import FitOutcome
    from diffvqa.stages._denoiser_training.objective import Denoising
    from diffvqa.stages._denoiser_training.pictures import TrainingPictures
    from diffvqa.stages._denoiser_training.recipe import DenoiserRecipe, FitRecipe
    from diffvqa.stages._diffusion.model import DiffusionModel

logger = logging.getLogger(__name__)

Pictures = Annotated[
    list[Path],
    typer.Argument(metavar="PICTURES…", help="Folders or files of photographs and videos.", show_default=False),
]
Recipe = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with the recipe (default: that of nano).", show_default=False),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option("--max-minutes", min=0.0, help="Stop at a checkpoint after this long.", show_default=False),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of the networks (default: all).", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin the training anew, whatever lies there.")]
Accumulate = Annotated[
    int, typer.Option("--accumulate", min=1, help="Compute each batch in this many parts, to need less memory.")
]


@dataclass(frozen=True)
class FitPlace:
    """Where a network is fitted, and for how long.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: Decoding processes; None for one per core.
        threads: CPU threads of the networks; None for what torch takes.
        accumulate: Parts that each batch is computed in.
        max_minutes: When to stop at a checkpoint; None for never.
        overwrite: Throw away what another training left.
    """

    device: str | None = None
    workers: int | None = None
    threads: int | None = None
    accumulate: int = 1
    max_minutes: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class FitSummary:
    """What was trained.

    Attributes:
        model: The model folder.
        journal: Folder of the losses and the checkpoint.
        outcome: How far it came.
    """

    model: Path
    journal: Path
    outcome: FitOutcome


def resolve_recipe(config: Path | None, assignments: Sequence[str] | None, *, show: bool = False) -> DenoiserRecipe:
    """Return the recipe of a TOML file, by default the shipped nano's, with single settings changed.

    Args:
        config: The file.
        assignments: Of ``--set``.
        show: Show the recipe and stop.

    Raises:
        ConfigError: Something in them is wrong.
    """
    import tomli_w

    from diffvqa.pipeline._config import parse_assignment, resolve
    from diffvqa.stages._denoiser_training.recipe import DenoiserRecipe, shipped_recipe

    recipe = resolve(DenoiserRecipe, config or shipped_recipe(), dict(map(parse_assignment, assignments or ())))
    if show:
        typer.echo(tomli_w.dumps(recipe.model_dump(mode="json")), nl=False)
        raise typer.Exit
    return recipe


def journal_folder(model: Path) -> Path:
    """Return the folder beside a model folder in which its training is kept."""
    return model.with_name(f"{model.name}-training")


def read_training_pictures(places: Sequence[Path], recipe: FitRecipe, place: FitPlace) -> TrainingPictures:
    """Decode the pictures of folders, and say which files could not be used.

    Raises:
        DatasetError: There are none.
        TrainingDataError: Too few are large enough.
    """
    from diffvqa.pipeline._config import Runtime
    from diffvqa.pipeline._console import progress
    from diffvqa.pipeline._picture_sources import find_pictures
    from diffvqa.stages._denoiser_training.pictures import Decoding, load_pictures

    runtime = Runtime() if place.workers is None else Runtime(workers=place.workers)
    decoding = Decoding(runtime.workers, runtime.decode_timeout, runtime.decode_memory)
    sources = find_pictures(places)
    with progress("read pictures", len(sources)) as report:
        pictures = load_pictures(sources, recipe, decoding, lambda failed: report.advance(failed=failed))
    for failure in pictures.failed:
        logger.warning("%s: %s: %s", failure.source.path, failure.reason, failure.detail)
    megabytes = sum(picture.nbytes for picture in pictures.train) / 1e6
    logger.info(
        "%d pictures to learn from (%.0f MB), %d to measure on", len(pictures.train), megabytes, len(pictures.held_out)
    )
    return pictures


def fit_with_journal(
    denoising: Denoising,
    pictures: TrainingPictures,
    recipe: FitRecipe,
    place: FitPlace,
    *,
    folder: Path,
    origin: Mapping[str, Any],
) -> FitOutcome:
    """Fit a network, going on where an earlier run of the same training stopped.

    Args:
        denoising: The network, on its device.
        pictures: To learn from.
        recipe: Of the training.
        place: Where and how long.
        folder: Of the journal.
        origin: JSON values that tell what the network started from; a change is another training.

    Raises:
        TrainingStateError: The journal is that of another training.
        OutputError: The journal cannot be written.
    """
    from diffvqa.pipeline._console import progress
    from diffvqa.stages._denoiser_training.fit import FitRuntime, fit_denoiser
    from diffvqa.stages._denoiser_training.journal import FitJournal, FitRow

    writes = is_main_process()
    identity = {"recipe": recipe.identity(), "pictures": pictures.digest(), **origin}
    journal = FitJournal(folder, identity, overwrite=place.overwrite, writes=writes)
    runtime = FitRuntime(
        denoising.model.null_prompt.device,
        accumulate=place.accumulate,
        max_seconds=None if place.max_minutes is None else 60 * place.max_minutes,
    )
    held_out = ""
    is_first = True
    with progress(f"fit {folder.name}", recipe.steps) as report:

        def show(rows: list[FitRow]) -> None:
            nonlocal held_out, is_first
            if is_first:
                report.go_on(rows[-1].step + 1, recipe.steps)
                is_first = False
            if rows[-1].held_out_loss is not None:
                held_out = f", held-out {rows[-1].held_out_loss:.4f}"
            mean = sum(row.loss for row in rows) / len(rows)
            report.set(rows[-1].step + 1, recipe.steps, note=f"loss {mean:.4f}{held_out}")

        return fit_denoiser(denoising, pictures, recipe, journal, runtime, show)


def is_main_process() -> bool:
    """Return whether this process is the one, of those that ``accelerate launch`` started, that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def prepare_device(place: FitPlace) -> torch.device:
    """Return the device of this process, and leave the cores to others that it need not take.

    Raises:
        ConfigError: There is no such device.
    """
    import torch

    from diffvqa.pipeline._backbone import choose_device

    if place.threads is not None:
        torch.set_num_threads(place.threads)
    device = choose_device(place.device or "auto")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def require_fitting_crops(model: DiffusionModel, recipe: FitRecipe) -> None:
    """Refuse crops whose sides the levels of the U-Net cannot halve.

    Raises:
        ConfigError: They do not fit.
    """
    from diffvqa.pipeline._errors import ConfigError

    if recipe.crop_size % model.frame_multiple:
        raise ConfigError(
            f"crop_size = {recipe.crop_size} does not fit the model.", f"Use a multiple of {model.frame_multiple}."
        )


def save_without_controller(model: DiffusionModel, out: Path) -> None:
    """Write the folder of a model whose U-Net was trained, from the process that writes.

    Raises:
        OutputError: The folder cannot be written.
    """
    from diffvqa.cache._atomic import atomic_folder, reporting_output_errors

    if is_main_process():
        with atomic_folder(out) as unfinished, reporting_output_errors(out):
            model.save(unfinished, half=True, controller=False)


def tell_next(summary: FitSummary) -> None:
    """Say where a model without a Controller lies, and that it can be given one."""
    from diffvqa.pipeline._console import tell

    tell(f"model: {summary.model}")
    if summary.outcome.is_finished:
        tell(f"next: diffvqa adapt PICTURES… --model {summary.model}")


def tell_outcome(summary: FitSummary, recipe: FitRecipe) -> None:
    """Say how far a fit came, how fast, and how to go on."""
    from diffvqa.pipeline._console import in_words, tell

    outcome = summary.outcome
    tell(f"steps: {outcome.steps} of {recipe.steps}, {outcome.steps_now} now in {in_words(outcome.seconds)}")
    if outcome.seconds:
        tell(f"waited for pictures {outcome.waited / outcome.seconds:.1%} of the steps' time")
    tell(f"losses: {summary.journal}")
    if not outcome.is_finished:
        tell("not finished: run the same command again to go on")
