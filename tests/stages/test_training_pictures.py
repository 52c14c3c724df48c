from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.stable_diffusion_material import NARROW_2, write_stable_diffusion
from PIL import Image
from training_material import TINY_FIT, synthetic_picture, synthetic_pictures, write_photos

from diffvqa.pipeline._denoiser_fit import resolve_recipe
from diffvqa.stages._denoiser_training.alignment import aligned_denoising, load_teacher_backbone, teacher_of
from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.crops import CropSampler, scaled_crop
from diffvqa.stages._denoiser_training.fit import FitRuntime, fit_denoiser
from diffvqa.stages._denoiser_training.journal import FitJournal, read_losses
from diffvqa.stages._denoiser_training.objective import Denoising, controller_denoising, unet_denoising
from diffvqa.stages._denoiser_training.pictures import Decoding, PictureSource, held_out_of, load_pictures
from diffvqa.stages._denoiser_training.recipe import FitRecipe
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._errors import TrainingDataError

CPU = torch.device("cpu")


def sources_in(folder: Path) -> list[PictureSource]:
    return [PictureSource(path.name, path) for path in sorted(folder.iterdir())]


def test_photographs_and_videos_become_pictures_and_what_is_broken_is_named(carphone: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, count=3)
    Image.fromarray(synthetic_picture(9, side=200)).save(tmp_path / "large.png")
    Image.new("RGB", (20, 90)).save(tmp_path / "thin.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (tmp_path / "clip.mp4").symlink_to(carphone)
    recipe = TINY_FIT.model_copy(update={"regions": 2, "video_frames": 3, "held_out": 1})
    pictures = load_pictures(sources_in(tmp_path), recipe, Decoding())
    assert [failed.source.video_id for failed in pictures.failed] == ["broken.jpg"]
    (held_out,) = held_out_of([source.name for source in sources_in(tmp_path)], recipe)
    counts = {"large.png": 2, "clip.mp4": 6, "thin.png": 0, "broken.jpg": 0}
    expected = sum(counts.get(source.name, 1) for source in sources_in(tmp_path) if source.name != held_out)
    assert len(pictures.train) == expected
    assert {picture.shape for picture in pictures.train} == {(96, 96, 3)}
    exact = [np.asarray(Image.open(tmp_path / f"{number:02d}.png")) for number in range(3)]
    known = {picture.tobytes() for picture in (*pictures.train, *pictures.held_out)}
    assert sum(picture.tobytes() in known for picture in exact) >= 2


def test_held_out_files_stay_the_same_when_their_order_changes() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    recipe = FitRecipe(held_out=8)
    chosen = held_out_of(names, recipe)
    assert len(chosen) == 8
    assert held_out_of(names[::-1], recipe) == chosen
    assert len(held_out_of(names[:20], recipe)) == 2


def test_pictures_too_small_to_crop_are_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (20, 400)).save(tmp_path / "thin.png")
    with pytest.raises(TrainingDataError, match="at least 32 pixels"):
        load_pictures(sources_in(tmp_path), TINY_FIT, Decoding())


def test_crops_are_a_function_of_the_step_and_shared_out_without_change() -> None:
    sampler = CropSampler(synthetic_pictures().train, TINY_FIT)
    whole = sampler.batch(3, range(4))
    assert whole.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(sampler.batch(3, range(1, 4, 2)), whole[1::2])
    assert not np.array_equal(sampler.batch(4, range(4)), whole)
    assert not np.array_equal(CropSampler(synthetic_pictures().train, TINY_FIT, "other").batch(3, range(4)), whole)


def test_a_crop_is_cut_at_its_scale_or_the_nearest_that_fits() -> None:
    picture = synthetic_picture(0, side=96)
    rng = np.random.default_rng(0)
    native = scaled_crop(picture, 32, (1.0,), rng)
    places = np.lib.stride_tricks.sliding_window_view(picture, (32, 32, 3))
    assert (places == native).all(axis=(-3, -2, -1)).any()
    whole = scaled_crop(picture, 32, (0.1,), rng)
    shrunk = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(whole, shrunk)


def losses_of(denoising: Denoising, recipe: FitRecipe, folder: Path) -> list[float]:
    fit_denoiser(denoising, synthetic_pictures(), recipe, FitJournal(folder, {}), FitRuntime(CPU))
    return [row.loss for row in read_losses(folder)]


def test_a_stable_diffusion_folder_is_adapted_without_touching_what_is_frozen(tmp_path: Path) -> None:
    base = write_stable_diffusion(tmp_path / "base", NARROW_2)
    model = load_model_folder(base, start_controller=True)
    frozen = {name: weights.clone() for name, weights in model.unet.state_dict().items()}
    recipe = TINY_FIT.model_copy(
        update={"steps": 2, "batch_size": 2, "crop_size": 64, "held_out": 1, "gradient_checkpointing": True}
    )
    assert len(losses_of(controller_denoising(model), recipe, tmp_path / "journal")) == 2
    assert all(torch.equal(weights, frozen[name]) for name, weights in model.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in model.unet.parameters())
    assert model.controller.controlnet_mid_block.weight.abs().max() > 0


# Of the shipped recipe at a size that takes a second, made with these very settings.
LOGGED_PRETRAIN = [
    1.1476,
    1.0204,
    0.9191,
    0.9036,
    0.8226,
    0.8032,
    0.8157,
    0.8009,
    0.755,
    0.7936,
    0.746,
    0.7202,
    0.7585,
    0.7102,
    0.7065,
    0.7436,
]
LOGGED_ALIGN = [
    1.5881,
    1.8262,
    1.4728,
    1.4844,
    1.4522,
    1.4906,
    1.4211,
    1.4732,
    1.5035,
    1.3292,
    1.4183,
    1.4431,
    1.5059,
    1.6788,
    1.4525,
    1.3219,
]
LOGGED_ADAPT = [
    0.7144,
    0.7055,
    0.6819,
    0.7862,
    0.6745,
    0.687,
    0.7226,
    0.7182,
    0.6915,
    0.7336,
    0.6996,
    0.6915,
    0.7192,
    0.6901,
    0.6874,
    0.716,
]


def test_the_shipped_recipe_gives_the_logged_curves_within_noise(tmp_path: Path) -> None:
    """A tiny variant of nano's recipe: whatever changes what it learns from, or how, moves these."""
    small = {"steps": 16, "learning_rate": 5e-3, "batch_size": 4, "crop_size": 32, "held_out": 2, "region": 96}
    tiny = [f"{part}.{name}={value}" for part in ("pretrain", "align", "adapt") for name, value in small.items()]
    architecture = ["widths=[16, 16]", "attention=[false, true]", "block_size=2"]
    recipe = resolve_recipe(None, [*tiny, *(f"architecture.{setting}" for setting in architecture)])
    model = build_untrained(recipe.architecture, recipe.pretrain.seed)
    pretrained = losses_of(unet_denoising(model), recipe.pretrain, tmp_path / "pretrain")
    teacher = teacher_of(load_teacher_backbone(recipe.align, CPU), synthetic_pictures(), recipe.align, CPU)
    aligned = losses_of(aligned_denoising(model, teacher, recipe.align), recipe.align, tmp_path / "align")
    adapted = losses_of(controller_denoising(model), recipe.adapt, tmp_path / "adapt")
    np.testing.assert_allclose(pretrained, LOGGED_PRETRAIN, rtol=5e-3)
    np.testing.assert_allclose(aligned, LOGGED_ALIGN, rtol=5e-3)
    np.testing.assert_allclose(adapted, LOGGED_ADAPT, rtol=5e-3)
