"""What a training step of the denoising networks costs, and what it is spent on, at several widths of the U-Net.

Each case trains on random pictures by the fit loop itself. The time of a step is the least of several; the share waited
for crops is the loop's own figure; the ratio is to the first case. One more table cuts crops alone, without a network.

    python -m tests.benchmarks.denoiser_training [--quick] [--threads 2] [--crop 128] [--batch 32]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.crops import CropSampler
from diffvqa.stages._denoiser_training.fit import FitRuntime, fit_denoiser
from diffvqa.stages._denoiser_training.journal import FitJournal
from diffvqa.stages._denoiser_training.objective import controller_denoising, unet_denoising
from diffvqa.stages._denoiser_training.pictures import TrainingPictures
from diffvqa.stages._denoiser_training.recipe import Architecture, FitRecipe

_WIDTHS = ((48, 96, 160), (96, 128, 192))


@dataclass(frozen=True)
class StepCost:
    """What one step takes.

    Attributes:
        millions: Parameters of the network that learns.
        seconds: Mean over the steps after the first.
        waited: Share of them in which the crops were not ready.
    """

    millions: float
    seconds: float
    waited: float


def measure(widths: tuple[int, ...], recipe: FitRecipe, *, controller: bool) -> StepCost:
    """Train a network of these widths for a few steps."""
    model = build_untrained(Architecture(widths=widths), seed=0)
    denoising = controller_denoising(model) if controller else unet_denoising(model)
    millions = sum(parameter.numel() for parameter in denoising.network.parameters()) / 1e6
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 256, (512, 512, 3), np.uint8) for _ in range(8))
    with tempfile.TemporaryDirectory() as folder:
        runtime = FitRuntime(torch.device("cpu"))
        shown = TrainingPictures(pictures, pictures[:1], ())
        first = fit_denoiser(denoising, shown, recipe, FitJournal(Path(folder, "first"), {}), runtime)
        second = fit_denoiser(denoising, shown, recipe, FitJournal(Path(folder, "second"), {}), runtime)
    seconds = min(first.seconds / first.steps_now, second.seconds / second.steps_now)
    return StepCost(millions, seconds, second.waited / second.seconds)


def crop_seconds(recipe: FitRecipe) -> float:
    """Return the CPU seconds that one step's crops take by themselves."""
    rng = np.random.default_rng(0)
    sampler = CropSampler([rng.integers(0, 256, (512, 512, 3), np.uint8)], recipe)
    begun = time.process_time()
    for step in range(3):
        sampler.batch(step, range(recipe.batch_size))
    return (time.process_time() - begun) / 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small crops and batches, a few seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    crop, batch = (32, 4) if options.quick else (options.crop, options.batch)
    recipe = FitRecipe(steps=2, batch_size=batch, crop_size=crop, held_out=1, validate_every=100, checkpoint_every=100)
    table = Table(title=f"one step, {batch} crops of {crop} px, {options.threads} threads", title_justify="left")
    for heading in ("learns", "widths", "parameters", "step", "ratio", "waited for crops"):
        table.add_column(heading, justify="right")
    reference: float | None = None
    for widths in _WIDTHS:
        for controller in (False, True):
            cost = measure(widths, recipe, controller=controller)
            reference = reference or cost.seconds
            table.add_row(
                "Controller" if controller else "U-Net",
                "/".join(map(str, widths)),
                f"{cost.millions:.1f} M",
                f"{cost.seconds:.2f} s",
                f"{cost.seconds / reference:.2f}",
                f"{cost.waited:.1%}",
            )
    Console().print(table)
    adapting = recipe.model_copy(update={"degraded": 0.75, "degradations": ("blur", "noise", "jpeg", "h264")})
    for name, each in (("a quarter degraded", recipe), ("three quarters degraded, H.264 too", adapting)):
        Console().print(f"crops alone, {name}: {crop_seconds(each):.3f} CPU s a step")


if __name__ == "__main__":
    main()
