from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_material import TINY, TINY_FIT, synthetic_pictures

from diffvqa.stages.denoiser_training.architecture import build_untrained
from diffvqa.stages.denoiser_training.fit import FitOutcome, FitRuntime, fit_denoiser
from diffvqa.stages.denoiser_training.journal import CHECKPOINT_FILE, LOSSES_FILE, FitJournal, read_losses
from diffvqa.stages.denoiser_training.objective import controller_denoising, timestep_weights, unet_denoising
from diffvqa.stages.denoiser_training.recipe import FitRecipe
from diffvqa.stages.diffusion.model import DiffusionModel
from diffvqa.stages.errors import TrainingDataError, TrainingStateError

CPU = torch.device("cpu")
PICTURES = synthetic_pictures()

pytestmark = pytest.mark.usefixtures("one_thread")


def train(folder: Path, recipe: FitRecipe = TINY_FIT, *, controller: bool = False, **runtime: Any) -> DiffusionModel:
    model = build_untrained(TINY, seed=3)
    denoising = controller_denoising(model) if controller else unet_denoising(model)
    fit_denoiser(denoising, PICTURES, recipe, FitJournal(folder, {}), FitRuntime(CPU, **runtime))
    return model


def stop_after(folder: Path, steps: int, recipe: FitRecipe = TINY_FIT) -> FitOutcome | None:
    """Train up to where something breaks after that many steps, as a kill would."""

    def fail(rows: list[Any]) -> None:
        if rows[-1].step + 1 >= steps:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_denoiser(
            unet_denoising(build_untrained(TINY, seed=3)),
            PICTURES,
            recipe,
            FitJournal(folder, {}),
            FitRuntime(CPU),
            fail,
        )
    return None


def test_training_lowers_the_loss_and_repeats_exactly(tmp_path: Path) -> None:
    recipe = TINY_FIT.model_copy(update={"steps": 40})
    first = train(tmp_path / "first", recipe)
    rows = read_losses(tmp_path / "first")
    assert [row.step for row in rows] == list(range(40))
    assert np.mean([row.loss for row in rows[-8:]]) < 0.95 * np.mean([row.loss for row in rows[:8]])
    measured = [row.held_out_loss for row in rows if row.held_out_loss is not None]
    assert len(measured) == 10
    assert measured[-1] < 0.95 * measured[0]
    again = train(tmp_path / "again", recipe)
    assert (tmp_path / "again" / LOSSES_FILE).read_bytes() == (tmp_path / "first" / LOSSES_FILE).read_bytes()
    for name, weights in first.unet.state_dict().items():
        assert torch.equal(weights, again.unet.state_dict()[name]), name


def test_a_fit_that_was_cut_off_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    stop_after(tmp_path / "cut", 8)  # after the checkpoint of step 5, whose later losses are forgotten
    assert len(read_losses(tmp_path / "cut")) == 8
    resumed = train(tmp_path / "cut")
    assert (tmp_path / "cut" / LOSSES_FILE).read_bytes() == (tmp_path / "whole" / LOSSES_FILE).read_bytes()
    assert (tmp_path / "cut" / CHECKPOINT_FILE).read_bytes() == (tmp_path / "whole" / CHECKPOINT_FILE).read_bytes()
    for name, weights in whole.unet.state_dict().items():
        assert torch.equal(weights, resumed.unet.state_dict()[name]), name


def test_out_of_time_it_stops_at_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    model = build_untrained(TINY, seed=3)
    journal = FitJournal(tmp_path / "short", {})
    outcome = fit_denoiser(unet_denoising(model), PICTURES, TINY_FIT, journal, FitRuntime(CPU, max_seconds=1e-9))
    assert (outcome.steps, outcome.is_finished) == (1, False)
    train(tmp_path / "short")
    train(tmp_path / "whole")
    assert (tmp_path / "short" / LOSSES_FILE).read_bytes() == (tmp_path / "whole" / LOSSES_FILE).read_bytes()


def test_parts_of_a_batch_teach_what_the_whole_batch_does(tmp_path: Path) -> None:
    whole, parts = train(tmp_path / "whole"), train(tmp_path / "parts", accumulate=3)
    losses = [[row.loss for row in read_losses(tmp_path / name)] for name in ("whole", "parts")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    with pytest.raises(TrainingDataError, match="cannot be divided into 5 parts"):
        train(tmp_path / "more", accumulate=5)
    assert whole is not parts


def test_only_the_controller_learns_when_it_is_adapted(tmp_path: Path) -> None:
    before = build_untrained(TINY, seed=3).unet.state_dict()
    adapted = train(tmp_path / "adapt", controller=True)
    for name, weights in adapted.unet.state_dict().items():
        assert torch.equal(weights, before[name]), name
    assert adapted.controller.controlnet_mid_block.weight.abs().max() > 0
    assert adapted.controller.controlnet_cond_embedding.weight.abs().max() > 0


def test_activations_computed_twice_teach_the_same(tmp_path: Path) -> None:
    twice = TINY_FIT.model_copy(update={"gradient_checkpointing": True})
    train(tmp_path / "once", controller=True)
    train(tmp_path / "twice", twice, controller=True)
    losses = [[row.loss for row in read_losses(tmp_path / name)] for name in ("once", "twice")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_journal_of_another_training_is_refused_by_the_name_of_what_differs(tmp_path: Path) -> None:
    FitJournal(tmp_path, {"recipe": {"steps": 10, "scales": [1.0]}, "pictures": "a"})
    FitJournal(tmp_path, {"recipe": {"steps": 10, "scales": (1.0,)}, "pictures": "a"})
    with pytest.raises(TrainingStateError, match=r"recipe\.steps was 10 and is now 20"):
        FitJournal(tmp_path, {"recipe": {"steps": 20, "scales": [1.0]}, "pictures": "a"})
    FitJournal(tmp_path, {"recipe": {"steps": 20}}, overwrite=True)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"no tensors")
    with pytest.raises(TrainingStateError, match="damaged"):
        FitJournal(tmp_path, {"recipe": {"steps": 20}})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("epsilon", [1.0, 1.0, 1.0]),
        ("min_snr", [0.05, 1.0, 1.0]),
        ("sqrt_snr", [0.1, 1.0, 2.0]),
        ("x0", [0.01, 1.0, 4.0]),
    ],
)
def test_errors_are_weighted_by_the_signal_to_noise_ratio(kind: str, expected: list[float]) -> None:
    recipe = FitRecipe.model_validate({"loss_weight": kind})
    weights = timestep_weights(torch.tensor([100.0, 1.0, 0.25]), recipe)
    torch.testing.assert_close(weights, torch.tensor(expected))
