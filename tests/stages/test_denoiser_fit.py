from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_material import TINY, TINY_FIT, synthetic_pictures

from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.fit import FitRuntime, fit_denoiser
from diffvqa.stages._denoiser_training.journal import CHECKPOINT_FILE, LOSSES_FILE, FitJournal, FitRow, read_losses
from diffvqa.stages._denoiser_training.objective import controller_denoising, timestep_weights, unet_denoising
from diffvqa.stages._denoiser_training.recipe import FitRecipe
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._errors import TrainingDataError, TrainingStateError

CPU = torch.device("cpu")
PICTURES = synthetic_pictures()


def train(folder: Path, recipe: FitRecipe = TINY_FIT, *, controller: bool = False, **runtime: Any) -> DiffusionModel:
    model = build_untrained(TINY, seed=3)
    denoising = controller_denoising(model) if controller else unet_denoising(model)
    fit_denoiser(denoising, PICTURES, recipe, FitJournal(folder, {}), FitRuntime(CPU, **runtime))
    return model


@dataclass(frozen=True)
class Fitted:
    folder: Path
    model: DiffusionModel

    @property
    def losses(self) -> list[float]:
        return [row.loss for row in read_losses(self.folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A U-Net trained without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return Fitted(folder, train(folder))


def assert_same(folder: Path, model: DiffusionModel, whole: Fitted) -> None:
    for name in (LOSSES_FILE, CHECKPOINT_FILE):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    for name, weights in whole.model.unet.state_dict().items():
        assert torch.equal(weights, model.unet.state_dict()[name]), name


def test_training_lowers_the_loss_and_repeats_exactly(whole: Fitted, tmp_path: Path) -> None:
    rows = read_losses(whole.folder)
    assert [row.step for row in rows] == list(range(8))
    assert np.mean(whole.losses[-3:]) < 0.99 * np.mean(whole.losses[:3])
    first, last = (row.held_out_loss for row in rows if row.held_out_loss is not None)
    assert first is not None
    assert last is not None
    assert last < first
    assert_same(tmp_path, train(tmp_path), whole)


def test_a_fit_that_broke_off_ends_bit_for_bit_as_one_that_did_not(whole: Fitted, tmp_path: Path) -> None:
    def break_off(rows: list[FitRow]) -> None:
        if rows[-1].step >= 3:
            raise InterruptedError

    broken = unet_denoising(build_untrained(TINY, seed=3))
    with pytest.raises(InterruptedError):
        fit_denoiser(broken, PICTURES, TINY_FIT, FitJournal(tmp_path, {}), FitRuntime(CPU), break_off)
    assert [row.step for row in read_losses(tmp_path)] == [0, 1, 2, 3]  # one more than the checkpoint knows
    assert_same(tmp_path, train(tmp_path), whole)


def test_out_of_time_it_stops_at_a_checkpoint_to_go_on_from(whole: Fitted, tmp_path: Path) -> None:
    denoising = unet_denoising(build_untrained(TINY, seed=3))
    runtime = FitRuntime(CPU, max_seconds=0.0)
    outcome = fit_denoiser(denoising, PICTURES, TINY_FIT, FitJournal(tmp_path, {}), runtime)
    assert (outcome.steps, outcome.is_finished) == (1, False)
    assert_same(tmp_path, train(tmp_path), whole)


def test_parts_of_a_batch_teach_what_the_whole_batch_does(whole: Fitted, tmp_path: Path) -> None:
    train(tmp_path / "parts", accumulate=3)
    parts = [row.loss for row in read_losses(tmp_path / "parts")]
    np.testing.assert_allclose(parts, whole.losses, rtol=1e-3)
    with pytest.raises(TrainingDataError, match="cannot be divided into 5 parts"):
        train(tmp_path / "more", accumulate=5)


def test_only_the_controller_learns_and_activations_computed_twice_teach_it_the_same(tmp_path: Path) -> None:
    before = build_untrained(TINY, seed=3).unet.state_dict()
    adapted = train(tmp_path / "once", controller=True)
    for name, weights in adapted.unet.state_dict().items():
        assert torch.equal(weights, before[name]), name
    assert adapted.controller.controlnet_mid_block.weight.abs().max() > 0
    assert adapted.controller.controlnet_cond_embedding.weight.abs().max() > 0
    train(tmp_path / "twice", TINY_FIT.model_copy(update={"gradient_checkpointing": True}), controller=True)
    losses = [[row.loss for row in read_losses(tmp_path / name)] for name in ("once", "twice")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_journal_of_another_training_is_refused_by_the_name_of_what_differs(tmp_path: Path) -> None:
    FitJournal(tmp_path, {"recipe": {"steps": 10, "scales": [1.0]}, "pictures": "a"})
    FitJournal(tmp_path, {"recipe": {"steps": 10, "scales": (1.0,)}, "pictures": "a"})
    with pytest.raises(TrainingStateError, match=r"recipe\.steps was 10 and is now 20"):
        FitJournal(tmp_path, {"recipe": {"steps": 20, "scales": [1.0]}, "pictures": "a"})
    journal = FitJournal(tmp_path, {"recipe": {"steps": 20}}, overwrite=True)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"no tensors")
    with pytest.raises(TrainingStateError, match="damaged"):
        journal.resume()


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


@settings(max_examples=50, deadline=None)
@given(
    length=st.integers(1, 200),
    cycles=st.integers(2, 5),
    warm_up=st.floats(0, 0.9),
    final_rate=st.floats(0, 1),
    step=st.integers(0, 10_000),
)
def test_each_cycle_of_the_rate_is_a_training_of_its_own(
    length: int, cycles: int, warm_up: float, final_rate: float, step: int
) -> None:
    alone = FitRecipe(steps=length, warm_up=warm_up, final_rate=final_rate)
    several = alone.model_copy(update={"steps": cycles * length, "cycles": cycles})
    step %= several.steps
    rate = several.rate_at(step)
    assert rate == alone.rate_at(step % length)
    assert min(final_rate, 1 / length) <= rate <= 1


def test_the_rate_rises_to_its_peak_and_falls_to_the_end() -> None:
    recipe = FitRecipe(steps=300, cycles=3, warm_up=0.1, final_rate=0.2)
    rates = [recipe.rate_at(step) for step in range(300)]
    assert rates[9] == rates[109] == rates[209] == 1.0
    assert rates[99] == pytest.approx(0.2, abs=1e-3)
    for first in (0, 100, 200):
        assert rates[first : first + 10] == sorted(rates[first : first + 10])
        assert rates[first + 10 : first + 100] == sorted(rates[first + 10 : first + 100], reverse=True)
    # Where they do not divide, the last is the shorter one.
    uneven = FitRecipe(steps=10, cycles=3, warm_up=0)
    assert [step for step in range(10) if uneven.rate_at(step) == 1.0] == [0, 1, 4, 5, 8, 9]
