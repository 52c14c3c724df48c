"""The noise schedule of a model folder, whatever sampler the folder names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.stages._diffusion.weight_files import read_json
from diffvqa.stages._errors import ModelFolderError

if TYPE_CHECKING:  # a folder is looked into without what would run it
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

SCHEDULER_FILE = "scheduler_config.json"
_TIMESTEPS = 1000
# What diffusers' DDPMScheduler knows, told here so that a folder can be judged without importing it.
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")


def ddpm_schedule(beta_start: float, beta_end: float, beta_schedule: str) -> DDPMScheduler:
    """Return the DDPM steps over 1000 timesteps that every model is sampled with: the paper's.

    Args:
        beta_start: First noise variance.
        beta_end: Last one.
        beta_schedule: diffusers' name of what lies between; Stable Diffusion's is "scaled_linear".
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=_TIMESTEPS,
        beta_start=beta_start,
        beta_end=beta_end,
        beta_schedule=beta_schedule,
        timestep_spacing="linspace",
        clip_sample=False,
        variance_type="fixed_small",
        prediction_type="epsilon",
    )


@dataclass(frozen=True)
class Betas:
    """The noise variances of a schedule, as its configuration tells them.

    Attributes:
        start: First noise variance.
        end: Last one.
        schedule: diffusers' name of what lies between.
    """

    start: float
    end: float
    schedule: str


def load_schedule(folder: Path) -> DDPMScheduler:
    """Return the DDPM schedule of a ``scheduler/`` folder; of its sampler (PNDM, DDIM, Euler ...) only the betas count.

    Raises:
        ModelFolderError: As for :func:`read_betas`.
    """
    betas = read_betas(folder)
    return ddpm_schedule(betas.start, betas.end, betas.schedule)


def read_betas(folder: Path) -> Betas:
    """Return the noise variances of a ``scheduler/`` folder.

    Raises:
        ModelFolderError: There is no configuration, it is damaged, or it is of a model that is not trained to predict
            noise over 1000 timesteps.
    """
    path = folder / SCHEDULER_FILE
    if not path.is_file():
        raise ModelFolderError(
            f"{folder.parent} is no model folder: {folder.name}/{SCHEDULER_FILE} is missing.",
            "Give a complete model folder.",
        )
    config = read_json(path)
    prediction = config.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ModelFolderError(
            f"{folder}: the model's prediction type is '{prediction}'; only 'epsilon' is supported.",
            "Use an epsilon-prediction model: of Stable Diffusion 2.1 the 512-pixel 'base', not the 768-pixel one.",
        )
    absent = [name for name in ("beta_start", "beta_end", "beta_schedule") if name not in config]
    if absent or config.get("trained_betas") or config.get("rescale_betas_zero_snr"):
        kind = config.get("_class_name", "unknown class")
        raise ModelFolderError(
            f"{folder}: the noise schedule of this {kind} is not one of betas from beta_start to beta_end.",
            "Use a model of the Stable Diffusion 1.x or 2.x family.",
        )
    if config.get("num_train_timesteps", _TIMESTEPS) != _TIMESTEPS:
        raise ModelFolderError(
            f"{folder}: the model has {config['num_train_timesteps']} timesteps; only {_TIMESTEPS} are supported.",
            "Use a model of the Stable Diffusion 1.x or 2.x family.",
        )
    betas = Betas(config["beta_start"], config["beta_end"], config["beta_schedule"])
    if not all(isinstance(beta, int | float) for beta in (betas.start, betas.end)) or betas.schedule not in _SCHEDULES:
        raise ModelFolderError(
            f"{path}: '{betas.schedule}' from {betas.start} to {betas.end} is no noise schedule.",
            "Fetch the model folder anew.",
        )
    return betas
