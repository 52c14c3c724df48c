from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.stable_diffusion_material import NARROW_2, write_stable_diffusion
from numpy.typing import NDArray

from diffvqa.stages._backbones.interface import level_slices
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.pooling import pool_to_grid
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.recipe import Architecture
from diffvqa.stages._diffusion.autoencoder import to_model_range
from diffvqa.stages._diffusion.denoising import denoise, noise_generators
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._errors import BackboneError, ModelFolderError
from diffvqa.stages._extract_recipe import ExtractRecipe, Precision
from diffvqa.stages._torch_threads import torch_threads
from diffvqa.stages._view_extractor import ViewExtractor

CPU = torch.device("cpu")


def recipe_of(folder: Path, **settings: object) -> ExtractRecipe:
    return ExtractRecipe.model_validate({"model": str(folder), "view_size": 32, "grid": 4, **settings})


def extractor(recipe: ExtractRecipe, *, batch_size: int = 16, channels_last: bool = False) -> ViewExtractor:
    backbone = load_backbone(recipe, Placement(CPU, channels_last=channels_last))
    return ViewExtractor(backbone, device=CPU, precision=recipe.precision, batch_size=batch_size)


def some_views(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


@torch.inference_mode()
def test_one_step_features_are_the_networks_own(tiny_model: Path) -> None:
    """Recompute by hand what one call at t gives: the blocks' maps, z_0 from the predicted noise, and what it lacks."""
    recipe = recipe_of(tiny_model, start_timestep=30)
    model = load_model_folder(tiny_model)
    views = some_views(3)
    features = extractor(recipe)(views, seeds=[5, 6, 7])
    z_0 = model.autoencoder.encode(to_model_range(torch.from_numpy(views).permute(0, 3, 1, 2)))
    noise = torch.stack([torch.randn(48, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 7)])
    kept = model.scheduler.alphas_cumprod[30]
    z_t = kept.sqrt() * z_0 + (1 - kept).sqrt() * noise
    maps: list[torch.Tensor] = []
    for block in (model.unet.mid_block, *model.unet.up_blocks):
        block.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    predicted = model.predict_noise(z_t, torch.tensor([30, 30, 30]), z_0)
    reconstructed = (z_t - (1 - kept).sqrt() * predicted) / kept.sqrt()
    assert features.latent is not None
    np.testing.assert_allclose(features.latent, reconstructed.numpy(), rtol=2e-3, atol=2e-3)
    maps.append(predicted - noise)
    maps = [torch.nn.functional.interpolate(level, max(4, level.shape[-1])) for level in maps]
    split = [level.reshape(*level.shape[:2], 4, level.shape[2] // 4, 4, level.shape[3] // 4) for level in maps]
    cells = [level.transpose(3, 4).flatten(4) for level in split]
    expected = torch.cat([*(cell.mean(4) for cell in cells), *(cell.std(4, correction=0) for cell in cells)], dim=1)
    np.testing.assert_allclose(features.multiscale, expected.numpy(), rtol=2e-3, atol=2e-3)
    assert features.latent.dtype == features.multiscale.dtype == np.float16


@torch.inference_mode()
def test_the_maps_are_those_of_the_last_step(tiny_model: Path) -> None:
    recipe = recipe_of(tiny_model, start_timestep=40, steps=3, multiscale_std=False)
    views, seeds = some_views(2), [1, 2]
    features = extractor(recipe)(views, seeds)
    model = load_model_folder(tiny_model)
    blocks = (model.unet.mid_block, *model.unet.up_blocks)
    calls: list[list[torch.Tensor]] = [[] for _ in blocks]
    for block, outputs in zip(blocks, calls, strict=True):
        block.register_forward_hook(lambda _module, _inputs, output, kept=outputs: kept.append(output))
    z_0 = model.autoencoder.encode(to_model_range(torch.from_numpy(views).permute(0, 3, 1, 2)))
    reconstructed = denoise(model, z_0, [40, 20, 0], noise_generators(seeds))
    assert [len(outputs) for outputs in calls] == [3, 3, 3, 3]
    assert features.latent is not None
    np.testing.assert_allclose(features.latent, reconstructed, rtol=2e-3, atol=2e-3)
    kept = float(model.scheduler.alphas_cumprod[0])
    residual = (z_0 - reconstructed) * math.sqrt(kept / (1 - kept))
    expected = pool_to_grid([*(outputs[-1] for outputs in calls), residual], 4, with_std=False)
    np.testing.assert_allclose(features.multiscale, expected, rtol=2e-3, atol=2e-3)


def test_compiled_networks_give_the_same_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a real compiler, and then run as it is: what matters is that the maps get out of the graph.

    Tracing takes its time for every layer, so the model has as few as there can be.
    """
    build_untrained(Architecture(widths=(16, 16), attention=(False, True)), seed=7).save(tmp_path)
    compiled, compile_module = [], torch.nn.Module.compile

    def trace(module: torch.nn.Module) -> None:
        compiled.append(type(module).__name__)
        compile_module(module, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    recipe = recipe_of(tmp_path)
    views, seeds = some_views(2), [1, 2]
    expected = extractor(recipe)(views, seeds).multiscale
    assert compiled == []
    backbone = load_backbone(recipe, Placement(CPU, compiled=True))
    found = ViewExtractor(backbone, device=CPU, side_by_side=False)(views, seeds).multiscale
    np.testing.assert_array_equal(found, expected)
    assert compiled == ["UNet2DConditionModel", "Controller"]


def test_views_that_are_computed_side_by_side_keep_their_own_maps(tiny_model: Path) -> None:
    views, seeds, ready = some_views(12), range(12), extractor(recipe_of(tiny_model))
    alone = ready(views, seeds)
    for _ in range(5):
        with torch_threads(4):
            together = ready(views, seeds)
        np.testing.assert_allclose(together.multiscale, alone.multiscale, rtol=2e-3, atol=2e-3)


def test_levels_name_the_channels_of_what_is_kept(tiny_model: Path) -> None:
    views, seeds = some_views(2), [1, 2]
    everything = extractor(recipe_of(tiny_model))
    slices = level_slices(everything.backbone.levels)
    maps = ["mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2", "residual"]
    assert list(slices) == [f"{name}/{statistic}" for statistic in ("mean", "std") for name in maps]
    features = everything(views, seeds).multiscale
    papers = {"middle_block": False, "residual": False}
    for settings, kept in (
        ({"multiscale_std": False}, [f"{name}/mean" for name in maps]),
        ({**papers, "multiscale_std": False}, ["up_blocks.0/mean", "up_blocks.1/mean", "up_blocks.2/mean"]),
        ({**papers, "up_blocks": [2, 0], "multiscale_std": False}, ["up_blocks.0/mean", "up_blocks.2/mean"]),
        (
            {"up_blocks": 1, "residual": False},
            ["mid_block/mean", "up_blocks.1/mean", "mid_block/std", "up_blocks.1/std"],
        ),
    ):
        some = extractor(recipe_of(tiny_model, **settings))
        assert [level.name for level in some.backbone.levels] == kept
        expected = np.concatenate([features[:, slice(*slices[name])] for name in kept], axis=1)
        np.testing.assert_array_equal(some(views, seeds).multiscale, expected)
    with pytest.raises(BackboneError, match="has no up-block 3"):
        load_backbone(recipe_of(tiny_model, up_blocks="1,3"), Placement(CPU))


def test_batch_size_and_neighbours_change_nothing_beyond_rounding(tiny_model: Path) -> None:
    recipe = recipe_of(tiny_model, start_timestep=999, steps=4)
    views, seeds = some_views(5), [11, 12, 13, 14, 15]
    together = extractor(recipe)(views, seeds)
    one_by_one = extractor(recipe, batch_size=1)(views, seeds)
    backwards = extractor(recipe, batch_size=2)(views[::-1].copy(), seeds[::-1])
    other_noise = extractor(recipe)(views, [seed + 100 for seed in seeds])
    assert together.latent is not None
    assert one_by_one.latent is not None
    assert backwards.latent is not None
    assert other_noise.latent is not None
    for other in (one_by_one.latent, backwards.latent[::-1]):
        np.testing.assert_allclose(together.latent, other, rtol=2e-3, atol=2e-3)
    for other in (one_by_one.multiscale, backwards.multiscale[::-1]):
        np.testing.assert_allclose(together.multiscale, other, rtol=2e-3, atol=2e-3)
    assert np.abs(together.latent - other_noise.latent).max() > 0.1


def test_the_layout_of_images_changes_nothing_beyond_rounding(tiny_model: Path) -> None:
    recipe = recipe_of(tiny_model, start_timestep=30)
    views, seeds = some_views(2), [1, 2]
    one, other = (extractor(recipe, channels_last=last)(views, seeds).multiscale for last in (False, True))
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_is_finite_and_close(tiny_model: Path, precision: Precision) -> None:
    views, seeds = some_views(2), [1, 2]
    exact = extractor(recipe_of(tiny_model, start_timestep=200))(views, seeds)
    reduced = extractor(recipe_of(tiny_model, start_timestep=200, precision=precision))(views, seeds)
    assert exact.latent is not None
    assert reduced.latent is not None
    for one, other in ((exact.latent, reduced.latent), (exact.multiscale, reduced.multiscale)):
        assert np.isfinite(other).all()
        error = np.abs(one.astype(np.float32) - other).mean() / np.abs(one.astype(np.float32)).mean()
        assert 0 < error < {"bfloat16": 0.02, "float16": 0.004}[precision]


def test_the_four_up_blocks_of_stable_diffusion_go_through_the_same_backbone(tmp_path: Path) -> None:
    """A folder without a Controller will do where its weights are not used."""
    folder = write_stable_diffusion(tmp_path / "sd", NARROW_2)
    recipe = recipe_of(folder, view_size=64, grid=4, steps=2, start_timestep=50).model_copy(
        update={"model": f"{folder}-random"}
    )
    ready = extractor(recipe, channels_last=True)
    assert ready.backbone.latent_shape == (4, 8, 8)
    assert [(level.name, level.channels) for level in ready.backbone.levels[:6]] == [
        ("mid_block/mean", 128), ("up_blocks.0/mean", 128),
        ("up_blocks.1/mean", 128), ("up_blocks.2/mean", 64), ("up_blocks.3/mean", 64),
        ("residual/mean", 4),
    ]  # fmt: skip
    views = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    features = ready(views, [1, 2])
    assert features.latent is not None
    assert features.latent.shape == (2, 4, 8, 8)
    assert features.multiscale.shape == (2, 2 * (128 + 384 + 4), 4, 4)
    assert features.is_finite()
    again = extractor(recipe, batch_size=1)(views, [1, 2])
    np.testing.assert_allclose(features.multiscale, again.multiscale, rtol=5e-3, atol=5e-3)
    with pytest.raises(ModelFolderError, match="adapt"):
        load_backbone(recipe.model_copy(update={"model": str(folder)}), Placement(CPU))


def test_random_weights_are_the_same_each_time_and_not_the_trained_ones(tiny_model: Path) -> None:
    views, seeds = some_views(2), [1, 2]
    trained, untrained, again = (
        extractor(recipe_of(tiny_model).model_copy(update={"model": name}))
        for name in (str(tiny_model), f"{tiny_model}-random", f"{tiny_model}-random")
    )
    assert list(trained.backbone.fingerprint) == ["diffusion"]
    assert list(untrained.backbone.fingerprint) == ["diffusion-random"]
    assert untrained.backbone.fingerprint == again.backbone.fingerprint
    assert untrained.backbone.levels == trained.backbone.levels
    features = untrained(views, seeds).multiscale
    np.testing.assert_array_equal(features, again(views, seeds).multiscale)
    assert np.abs(features - trained(views, seeds).multiscale).max() > 0.1
