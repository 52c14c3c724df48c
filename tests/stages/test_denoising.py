from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from diffvqa.stages._diffusion.denoising import denoise, denoising_timesteps, noise_generators, noised_start
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.model_folder import load_model_folder

SEEDS = [11, 12]
PAPER = denoising_timesteps(50, 999)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DiffusionModel:
    """A model whose Controller has a say."""
    torch.manual_seed(0)
    loaded = load_model_folder(tiny_model)
    for parameter in loaded.controller.controlnet_cond_embedding.parameters():
        nn.init.normal_(parameter, std=0.05)
    for block in [*loaded.controller.controlnet_down_blocks, loaded.controller.controlnet_mid_block]:
        nn.init.normal_(block.weight, std=0.05)
    return loaded


@pytest.fixture(scope="module")
def z_0() -> Tensor:
    return torch.rand(2, 48, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def diffusers_scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",
        clip_sample=False,
        variance_type="fixed_small",
        prediction_type="epsilon",
    )


@torch.inference_mode()
def test_fifty_spaced_steps_equal_diffusers_own_loop(model: DiffusionModel, z_0: Tensor) -> None:
    scheduler = diffusers_scheduler()
    scheduler.set_timesteps(50)
    for view, seed in enumerate(SEEDS):
        shown = z_0[view : view + 1]
        generator = torch.Generator().manual_seed(seed)
        z_t = torch.randn(shown.shape, generator=generator)
        for t in scheduler.timesteps:
            predicted = model.predict_noise(z_t, t.reshape(1), shown)
            z_t = scheduler.step(predicted, t, z_t, generator=generator).prev_sample
        ours = denoise(model, shown, PAPER, noise_generators([seed]))
        torch.testing.assert_close(ours, z_t, atol=1e-5, rtol=1e-5)
        together = denoise(model, z_0, PAPER, noise_generators(SEEDS))[view : view + 1]
        torch.testing.assert_close(together, z_t, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_few_steps_follow_the_papers_equations(model: DiffusionModel, z_0: Tensor) -> None:
    """The posterior of a DDPM (Ho et al. 2020, equations 6 and 7), computed here in double precision."""
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    timesteps = denoising_timesteps(4, 300)
    shown, generator = z_0[:1], torch.Generator().manual_seed(5)

    def noise() -> Tensor:
        return torch.randn(shown.shape, generator=generator).double()

    z_t = kept[300] ** 0.5 * shown.double() + (1 - kept[300]) ** 0.5 * noise()
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        kept_after = 1.0 if following is None else kept[following]
        alpha = kept[t] / kept_after
        predicted = model.predict_noise(z_t.float(), torch.tensor([t]), shown).double()
        clean = (z_t - (1 - kept[t]) ** 0.5 * predicted) / kept[t] ** 0.5
        mean = (kept_after**0.5 * (1 - alpha) * clean + alpha**0.5 * (1 - kept_after) * z_t) / (1 - kept[t])
        variance = (1 - kept_after) / (1 - kept[t]) * (1 - alpha)
        z_t = mean if following is None else mean + variance**0.5 * noise()
    ours = denoise(model, shown, timesteps, noise_generators([5]))
    torch.testing.assert_close(ours.double(), z_t, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_only_pure_noise_forgets_the_view(model: DiffusionModel, z_0: Tensor) -> None:
    forgotten = noised_start(model, z_0, 999, noise_generators(SEEDS))
    assert torch.equal(forgotten, noised_start(model, -z_0, 999, noise_generators(SEEDS)))
    nearly = noised_start(model, z_0, 998, noise_generators(SEEDS))
    assert not torch.equal(nearly, noised_start(model, -z_0, 998, noise_generators(SEEDS)))
    torch.testing.assert_close(nearly, forgotten, atol=0.1, rtol=0)


@torch.inference_mode()
def test_noise_and_result_keep_the_latents_precision_under_autocast(model: DiffusionModel, z_0: Tensor) -> None:
    exact = denoise(model, z_0, [20, 10, 0], noise_generators(SEEDS))
    with torch.autocast("cpu", torch.bfloat16):
        rough = denoise(model, z_0, [20, 10, 0], noise_generators(SEEDS))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0)


def test_timesteps_run_from_the_start_down_to_zero() -> None:
    assert len(PAPER) == 50
    assert (PAPER[0], PAPER[-1]) == (999, 0)
    assert np.linspace(999, 0, 50).round().astype(int).tolist() == PAPER
    assert denoising_timesteps(1, 20) == [20]
    assert denoising_timesteps(10, 3) == [3, 2, 1, 0]


@given(steps=st.integers(2, 1000), start=st.integers(0, 999))
def test_timesteps_fall_and_are_never_more_than_asked_for(steps: int, start: int) -> None:
    timesteps = denoising_timesteps(steps, start)
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert (timesteps[0], timesteps[-1]) == (start, 0)
    assert len(timesteps) == min(steps, start + 1)
