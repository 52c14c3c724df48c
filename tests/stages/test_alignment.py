from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training_material import TINY, TINY_FIT, synthetic_pictures

from diffvqa.stages._backbones.interface import Level, ViewFeatures
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._denoiser_training.alignment import Teacher, aligned_denoising, load_teacher_backbone, teacher_of
from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.crops import CropSampler
from diffvqa.stages._denoiser_training.fit import FitRuntime, fit_denoiser
from diffvqa.stages._denoiser_training.journal import CHECKPOINT_FILE, LOSSES_FILE, FitJournal, FitRow, read_losses
from diffvqa.stages._denoiser_training.objective import draw, unet_denoising
from diffvqa.stages._denoiser_training.recipe import AlignRecipe
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._errors import BackboneError
from diffvqa.stages._extract_recipe import ExtractRecipe

CPU = torch.device("cpu")
PICTURES = synthetic_pictures()
RECIPE = AlignRecipe(**{**TINY_FIT.model_dump(), "steps": 8, "weight_decay": 0.0})


class Colours:
    """A backbone whose maps are the three colours of each cell, each on a scale of its own."""

    latent_shape = None
    view_multiple = 1
    levels = (Level("colours/mean", 3),)
    fingerprint: Mapping[str, str] = {"colours": "of a test"}

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
        assert views.shape[1:] == (32, 32, 3)
        assert len(seeds) == len(views)
        self.seen += len(views)
        scales = torch.tensor([1.0, 10.0, 0.1])[:, None, None]
        return ViewFeatures(None, F.adaptive_avg_pool2d(views.permute(0, 3, 1, 2).float(), 16) * scales)


def crops_of(step: int, count: int) -> Tensor:
    return torch.from_numpy(CropSampler(PICTURES.train, RECIPE).batch(step, range(count)))


def teacher() -> Teacher:
    return Teacher(Colours(), crops_of(99, 64))


def train(folder: Path, recipe: AlignRecipe = RECIPE, **runtime: Any) -> DiffusionModel:
    model = build_untrained(TINY, seed=3)
    denoising = aligned_denoising(model, teacher(), recipe)
    fit_denoiser(denoising, PICTURES, recipe, FitJournal(folder, {}), FitRuntime(CPU, **runtime))
    return model


def assert_same(one: Path, other: Path) -> None:
    for name in (LOSSES_FILE, CHECKPOINT_FILE):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


def test_every_map_of_a_teacher_has_the_same_scale_and_keeps_what_it_tells() -> None:
    examples = crops_of(99, 64)
    maps = Teacher(Colours(), examples).maps(examples)
    torch.testing.assert_close(maps.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    shown = Colours().extract(examples.permute(0, 2, 3, 1), [0] * 64).multiscale
    for told, seen in zip(maps.unbind(1), shown.unbind(1), strict=True):
        assert np.corrcoef(told.flatten(), seen.flatten())[0, 1] > 0.99999


def test_the_blocks_learn_to_tell_a_new_picture_and_the_noise_is_still_learned(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 60, "batch_size": 8, "teacher_weight": 1.0})
    model = build_untrained(TINY, seed=3)
    denoising = aligned_denoising(model, teacher(), recipe)
    of_the_unet = unet_denoising(model)
    crops = torch.from_numpy(CropSampler(PICTURES.held_out, recipe, "held-out").batch(0, range(8)))
    shape = denoising.latent_shape(32)
    at_zero, spread = draw(5, 0, 8, shape, 1000, at_zero=8), draw(5, 0, 8, shape, 1000)

    def told_error() -> float:
        with torch.no_grad():
            whole = denoising.weighted_errors(denoising.network, crops, at_zero, recipe).mean()
            of_noise = of_the_unet.weighted_errors(model.unet, crops, at_zero, recipe).mean()
        return float(whole - of_noise) / denoising.weight

    def noise_error() -> float:
        with torch.no_grad():
            return float(denoising.weighted_errors(denoising.network, crops, spread, recipe).mean())

    told_before, noise_before = told_error(), noise_error()
    fit_denoiser(denoising, PICTURES, recipe, FitJournal(tmp_path, {}), FitRuntime(CPU))
    assert told_before > 0.8
    assert told_error() < 0.5 * told_before, told_error()
    assert noise_error() < 0.9 * noise_before, noise_error()


def test_the_teacher_is_asked_about_crops_at_zero_alone(tmp_path: Path) -> None:
    backbone = Colours()
    asked = Teacher(backbone, crops_of(99, 64))
    recipe = RECIPE.model_copy(update={"at_zero": 0.25, "steps": 4})
    denoising = aligned_denoising(build_untrained(TINY, seed=3), asked, recipe)
    drawn = [draw(recipe.seed, step, 4, denoising.latent_shape(32), 1000, at_zero=1).t for step in range(4)]
    assert [t[0] for t in drawn] == [0, 0, 0, 0]
    backbone.seen = 0
    fit_denoiser(denoising, PICTURES, recipe, FitJournal(tmp_path, {}), FitRuntime(CPU))
    assert backbone.seen == sum(int((t == 0).sum()) for t in drawn)


def test_a_training_that_broke_off_ends_bit_for_bit_as_one_that_did_not(whole: Path, tmp_path: Path) -> None:
    def break_off(rows: list[FitRow]) -> None:
        if rows[-1].step >= 3:
            raise InterruptedError

    denoising = aligned_denoising(build_untrained(TINY, seed=3), teacher(), RECIPE)
    with pytest.raises(InterruptedError):
        fit_denoiser(denoising, PICTURES, RECIPE, FitJournal(tmp_path, {}), FitRuntime(CPU), break_off)
    train(tmp_path)
    assert_same(tmp_path, whole)


def test_parts_of_a_batch_and_activations_computed_twice_teach_what_the_whole_batch_does(
    whole: Path, tmp_path: Path
) -> None:
    train(tmp_path / "parts", accumulate=4)  # of which two have no crop that is told
    train(tmp_path / "twice", RECIPE.model_copy(update={"gradient_checkpointing": True}))
    expected = [row.loss for row in read_losses(whole)]
    for name in ("parts", "twice"):
        np.testing.assert_allclose([row.loss for row in read_losses(tmp_path / name)], expected, rtol=1e-3)


def test_the_published_cnn_teaches_its_maps_and_an_unknown_teacher_is_refused() -> None:
    recipe = RECIPE.model_copy(update={"teacher": "efficientnet-lite0"})
    cnn = teacher_of(load_teacher_backbone(recipe, CPU), PICTURES, recipe, CPU)
    crops = crops_of(0, 4)
    seen = ExtractRecipe(model="efficientnet-lite0", view_size=32, grid=16, multiscale_std=False)
    with torch.no_grad():
        expected = load_backbone(seen, Placement(CPU)).extract(crops.permute(0, 2, 3, 1), [0] * 4).multiscale
    told = cnn.maps(crops)
    assert told.shape == expected.shape
    assert cnn.width == expected.shape[1]
    for number in (0, 100, cnn.width - 1):
        assert np.corrcoef(told[:, number].flatten(), expected[:, number].flatten())[0, 1] > 0.999
    with pytest.raises(Exception, match="There is no model 'mega'"):
        load_teacher_backbone(recipe.model_copy(update={"teacher": "mega"}), CPU)
    with pytest.raises(BackboneError, match="does not fit the model"):
        load_teacher_backbone(recipe.model_copy(update={"teacher": "nano", "crop_size": 40}), CPU)
