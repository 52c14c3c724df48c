from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from diffvqa.stages._dff import DiffusionFeatureFusion
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._fff import FrameFeatureFusion
from diffvqa.stages._frame_summary import FrameSummary, kind_shares
from diffvqa.stages._kernel_ridge import KernelRidge
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._quality_head import QualityHead
from diffvqa.stages._regressor import Prediction, Regressor
from diffvqa.stages._tcab import TemporalCoherenceAugmentation
from diffvqa.stages._tdm import TemporalDifference
from diffvqa.stages._train_recipe import TrainRecipe, ablations
from diffvqa.stages._training_data import BranchInput, BranchMoments, BranchShape, VideoBatch

LATENT = (3, 8, 8)
SHAPE = BranchShape(latent=LATENT, multiscale=(5, 4, 4), frame_size=16)
RECIPE = TrainRecipe(width=4, tcab_patch=8, tcab_width=4, tcab_state=2, head_width=8)


def make_regressor(seed: int = 0, recipe: TrainRecipe = RECIPE) -> Regressor:
    torch.manual_seed(seed)
    return Regressor(recipe, SHAPE, SHAPE).eval()


def random_view(*leading: int) -> BranchInput:
    return BranchInput.from_maps(
        torch.randn(*leading, *LATENT).half(),
        torch.randn(*leading, *SHAPE.multiscale).half(),
        torch.randint(0, 256, (*leading, 16, 16, 3), dtype=torch.uint8),
    )


def random_batch(videos: int, frames: int, crops: int, seed: int = 1) -> VideoBatch:
    torch.manual_seed(seed)
    mask = torch.ones(videos, frames, dtype=torch.bool)
    return VideoBatch(random_view(videos, frames), random_view(videos, crops, frames), mask)


def moments_of(batch: VideoBatch) -> dict[str, BranchMoments]:
    return {"resize": BranchMoments.of(batch.resize, SHAPE), "crop": BranchMoments.of(batch.crop, SHAPE)}


def take(view: BranchInput, *index: slice | int) -> BranchInput:
    return view.map(lambda part: part[index])


def latent_of(view: BranchInput) -> torch.Tensor:
    assert view.latent is not None
    return view.latent


@torch.no_grad()
def run(regressor: Regressor, batch: VideoBatch) -> Prediction:
    prediction: Prediction = regressor(batch)
    return prediction


@settings(max_examples=10)
@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_padding_a_video_does_not_change_it(seed: int, frames: int, padding: int, crops: int) -> None:
    regressor, padded = make_regressor(seed), random_batch(2, frames + padding, crops, seed)
    padded.frame_mask[0, frames:] = False
    first = slice(0, 1)
    alone = VideoBatch(
        take(padded.resize, first, slice(frames)),
        take(padded.crop, first, slice(None), slice(frames)),
        torch.ones(1, frames, dtype=torch.bool),
    )
    expected, found = run(regressor, alone), run(regressor, padded)
    assert torch.allclose(found.score[:1], expected.score, atol=1e-5)
    assert torch.allclose(found.frame_quality[:1, :frames], expected.frame_quality, atol=1e-5)
    assert torch.allclose(found.frame_weight[:1, :frames], expected.frame_weight, atol=1e-5)
    assert found.frame_weight[0, frames:].eq(0).all()
    assert found.frame_quality[0, frames:].eq(0).all()


def test_weights_sum_to_one_and_weigh_the_frames_qualities() -> None:
    regressor, batch = make_regressor(), random_batch(3, 4, 1)
    batch.frame_mask[1, 2:] = False
    found = run(regressor, batch)
    assert torch.allclose(found.frame_weight.sum(1), torch.ones(3))
    assert torch.allclose((found.frame_weight * found.frame_quality).sum(1), found.score, atol=1e-4)


def test_the_prediction_is_the_mean_over_the_crops() -> None:
    regressor, batch = make_regressor(), random_batch(2, 3, 3)
    every = slice(None)
    each = [run(regressor, replace(batch, crop=take(batch.crop, every, slice(k, k + 1)))) for k in range(3)]
    found = run(regressor, batch)
    assert torch.allclose(found.score, torch.stack([one.score for one in each]).mean(0), atol=1e-5)
    assert torch.allclose(found.frame_weight, torch.stack([one.frame_weight for one in each]).mean(0), atol=1e-6)
    assert not torch.allclose(each[0].score, each[1].score)


@pytest.mark.parametrize("view", ["resize", "crop"])
@pytest.mark.parametrize("part", ["latent", "texture", "multiscale", "frames"])
def test_every_input_has_an_effect(view: str, part: str) -> None:
    regressor, batch = make_regressor(), random_batch(1, 3, 1)
    branch: BranchInput = getattr(batch, view)
    other = replace(branch, **{part: getattr(branch, part).flip(-1 if part == "texture" else -3)})
    changed = replace(batch, resize=other) if view == "resize" else replace(batch, crop=other)
    assert not torch.allclose(run(regressor, changed).score, run(regressor, batch).score)


@pytest.mark.parametrize("variant", ablations(RECIPE))
def test_every_parameter_learns(variant: str) -> None:
    recipe = ablations(RECIPE.model_copy(update={"width": 16}))[variant]
    regressor, batch = make_regressor(recipe=recipe), random_batch(3, 3, 1)
    regressor(batch).score.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in regressor.named_parameters()}
    gradients.pop("head.weight.4.bias", None)  # the softmax is blind to it
    assert [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()] == []
    assert [name for name, grad in gradients.items() if grad is not None and grad.eq(0).all()] == []


def test_inputs_are_standardised_with_stored_statistics() -> None:
    batch = random_batch(4, 3, 2)
    view = batch.resize
    assert view.texture is not None
    shifted = replace(
        view, latent=latent_of(view) * 64, texture=view.texture * 4 - 9, multiscale=view.multiscale * 64 - 99
    )
    regressor, moved = make_regressor(), make_regressor()
    regressor.set_input_statistics(moments_of(batch))
    moved.set_input_statistics(moments_of(replace(batch, resize=shifted)))
    found = run(moved, replace(batch, resize=shifted)).score
    assert torch.allclose(found, run(regressor, batch).score, atol=1e-3)  # float16 inputs
    assert not torch.allclose(found, run(make_regressor(), replace(batch, resize=shifted)).score, atol=1e-2)

    reloaded = make_regressor(seed=5)
    reloaded.load_state_dict(moved.state_dict())
    assert torch.equal(run(reloaded, replace(batch, resize=shifted)).score, found)


def test_a_channel_that_never_varies_does_no_harm() -> None:
    batch = random_batch(2, 2, 1)
    latent_of(batch.resize)[:, :, 1] = 4.0
    regressor = make_regressor()
    regressor.set_input_statistics(moments_of(batch))
    assert run(regressor, batch).score.isfinite().all()


def test_moments_of_parts_combine_to_those_of_all_values_of_a_channel() -> None:
    views = [random_view(2), random_view(3, 4)]
    found = BranchMoments.combined([BranchMoments.of(view, SHAPE) for view in views])
    multiscale = torch.cat([view.multiscale.double().reshape(-1, SHAPE.multiscale[0]) for view in views])
    assert found.multiscale.count == len(multiscale)
    assert torch.allclose(found.multiscale.mean, multiscale.mean(0), atol=1e-5)
    assert torch.allclose(found.multiscale.variance, multiscale.var(0, correction=0), atol=1e-5)


def test_moments_of_blocks_are_those_of_the_maps_channels() -> None:
    torch.manual_seed(0)
    shape = BranchShape((3, 32, 16), (5, 4, 4), 8)
    latent = torch.randn(6, 3, 32, 16) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    view = BranchInput.from_maps(latent, torch.randn(6, *shape.multiscale), torch.empty(0))
    assert latent_of(view).shape == (6, 16 * 8, 3 * 2 * 2)
    found = BranchMoments.of(view, shape).latent
    assert found is not None
    assert found.count == latent[:, 0].numel()
    assert torch.allclose(found.mean, latent.double().mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(found.variance, latent.double().var((0, 2, 3), correction=0), atol=1e-5)


def test_the_first_frames_difference_is_zero() -> None:
    fused = torch.randn(2, 4, 3, 5, 5)
    found = TemporalDifference(3)(fused)
    assert torch.equal(found[:, :, :3], fused)
    assert found[:, 0, 3:].eq(0).all()
    assert torch.equal(found[:, 1:, 3:], fused[:, 1:] - fused[:, :-1])
    assert torch.equal(TemporalDifference(3, enabled=False)(fused), fused)


@pytest.mark.parametrize("enabled", [True, False])
def test_fff_is_read_out_per_frame(enabled: bool) -> None:
    torch.manual_seed(0)
    module, maps = FrameFeatureFusion(2, (5, 4), 3, enabled=enabled), torch.randn(1, 6, 2, 5, 4)
    changed = maps.clone()
    changed[:, 3] *= 2
    assert module(maps).shape == (1, 6, module.width)
    differs = (module(maps) != module(changed)).any(-1)[0]
    assert differs.tolist() == [False, False, False, True, False, False]


def test_dff_is_the_convolution_over_the_concatenation() -> None:
    """The literal form: F_MS adjusted and repeated over the latent's grid, concatenated, then one convolution."""
    torch.manual_seed(0)
    module = DiffusionFeatureFusion(BranchShape((3, 32, 32), (5, 8, 8), 16), width=4)
    latent, multiscale = torch.randn(2, 3, 32, 32), torch.randn(2, 5, 8, 8)
    weights = dict(module.named_parameters())
    pointwise = F.conv2d(multiscale, weights["adjust.weight"][:, :, None, None], weights["adjust.bias"])
    adjusted = F.gelu(pointwise).repeat_interleave(4, 2).repeat_interleave(4, 3)
    spread = weights["conv_multiscale.weight"][:, :, None, None].expand(-1, -1, 4, 4) / 16
    weight = torch.cat([weights["conv_latent.weight"].reshape(4, 3, 4, 4), spread], dim=1)
    fused = F.gelu(F.conv2d(torch.cat([latent, adjusted], dim=1), weight, weights["conv_latent.bias"], stride=4))
    fused = fused * module.channel_attention(fused)
    view = BranchInput.from_maps(latent, multiscale, torch.empty(0))
    assert torch.allclose(module(view.latent, view.multiscale), fused * module.spatial_attention(fused), atol=1e-5)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("latent", "grid"), [((3, 32, 32), (8, 8)), ((4, 8, 8), (8, 8)), ((2, 5, 7), (5, 7)), ((2, 23, 17), (11, 8))]
)
def test_dff_lies_on_a_small_grid_whatever_the_features(
    latent: tuple[int, int, int], grid: tuple[int, int], enabled: bool
) -> None:
    module = DiffusionFeatureFusion(BranchShape(latent, (6, 3, 3), 16), width=4, enabled=enabled)
    view = BranchInput.from_maps(torch.randn(2, *latent), torch.randn(2, 6, 3, 3), torch.empty(0))
    assert module(view.latent, view.multiscale).shape == (2, 4, *grid)


def test_tcab_cuts_frames_into_patches() -> None:
    module = TemporalCoherenceAugmentation(frame_size=17, patch=8, width=4, depth=1, state=2)
    frames = torch.arange(2 * 17 * 17 * 3).remainder(251).to(torch.uint8).reshape(1, 2, 17, 17, 3)
    patches = module._patches(frames)
    assert patches.shape == (1, 2, 4, 192)
    assert patches.dtype == torch.uint8
    second_row_first_column = frames[0, 1, 8:16, 0:8].flatten()
    assert torch.equal(patches[0, 1, 2], second_row_first_column)


def test_tcab_tells_the_order_of_frames() -> None:
    torch.manual_seed(0)
    module = TemporalCoherenceAugmentation(frame_size=8, patch=8, width=8, depth=1, state=2)
    frames = torch.full((1, 3, 8, 8, 3), 128, dtype=torch.uint8)
    found = module(frames, torch.ones(1, 3, dtype=torch.bool))
    assert not torch.allclose(found[0, 0], found[0, 2], atol=1e-3)


def test_a_patch_larger_than_a_frame_is_an_error() -> None:
    with pytest.raises(TrainingDataError, match="tcab_patch is 32") as error:
        Regressor(RECIPE.model_copy(update={"tcab_patch": 32}), SHAPE, SHAPE)
    assert "16" in error.value.hint


def test_the_head_ignores_what_stands_at_padding() -> None:
    torch.manual_seed(0)
    head, features = QualityHead(4, 8, 0.0), torch.randn(1, 3, 4)
    mask = torch.tensor([[True, True, False]])
    other = features.clone()
    other[:, 2] = 1e6
    for expected, found in zip(head(features, mask), head(other, mask), strict=True):
        assert torch.equal(expected, found)


def test_dropout_is_only_for_training() -> None:
    regressor, batch = make_regressor(recipe=RECIPE.model_copy(update={"dropout": 0.5})), random_batch(1, 2, 1)
    assert torch.equal(run(regressor, batch).score, run(regressor, batch).score)
    regressor.train()
    scores: list[Tensor] = [run(regressor, batch).score for _ in range(3)]
    assert not all(torch.equal(scores[0], score) for score in scores)


@pytest.mark.parametrize("dff", [True, False])
def test_features_without_a_latent_are_fused_from_the_maps_alone(dff: bool) -> None:
    shape = replace(SHAPE, latent=None)
    recipe = RECIPE.model_copy(update={"dff": dff, "width": 16})
    torch.manual_seed(0)
    regressor, batch = Regressor(recipe, shape, shape), random_batch(2, 3, 2)
    resize, crop = (replace(view, latent=None, texture=None, flat_texture=None) for view in (batch.resize, batch.crop))
    batch = replace(batch, resize=resize, crop=crop)
    regressor.set_input_statistics(moments_of(batch))
    regressor(batch).score.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in regressor.named_parameters()}
    gradients.pop("head.weight.4.bias", None)  # the softmax is blind to it
    assert [name for name, grad in gradients.items() if grad is None or grad.eq(0).all()] == []
    regressor.eval()
    for view in ("resize", "crop"):
        branch: BranchInput = getattr(batch, view)
        other = replace(branch, multiscale=branch.multiscale.flip(-3))
        changed = replace(batch, resize=other) if view == "resize" else replace(batch, crop=other)
        assert not torch.allclose(run(regressor, changed).score, run(regressor, batch).score)


def test_without_a_latent_dff_lies_on_the_grid_of_the_maps() -> None:
    for grid, expected in ((4, 4), (8, 8), (16, 8), (7, 7)):
        module = DiffusionFeatureFusion(BranchShape(None, (6, grid, grid), 16), width=5)
        assert module(None, torch.randn(2, grid * grid, 6)).shape == (2, 5, expected, expected)


def test_a_summary_holds_what_numpy_says_of_the_places_and_crops() -> None:
    batch = random_batch(2, 3, 4)
    summary = FrameSummary.of(batch.resize, batch.crop)
    for view, found in (("resize", batch.resize), ("crop", batch.crop)):
        maps = found.multiscale.float().numpy()
        expected = np.concatenate([maps.mean(-2), maps.std(-2)], axis=-1)
        assert found.texture is not None
        assert found.flat_texture is not None
        textures = [each.float().numpy() for each in (found.texture, found.flat_texture)]
        if view == "crop":
            expected, textures = expected.mean(1), [texture.mean(1) for texture in textures]
        assert np.allclose(summary.maps[view], expected, atol=2e-3)
        assert np.allclose(summary.textures[view], textures[0], atol=1e-2, rtol=1e-3)
        assert np.allclose(summary.flat_textures[view], textures[1], atol=1e-2, rtol=1e-3)
    of_maps, of_texture, of_flat = summary.kinds(RECIPE)
    numbers = 2 * summary.textures["crop"].shape[-1]
    assert (of_maps.shape, of_texture.shape, of_flat.shape) == ((2, 3, 4 * 5), (2, 3, numbers), (2, 3, numbers))
    assert torch.equal(of_flat, torch.cat([summary.flat_textures[view] for view in ("resize", "crop")], dim=-1).float())
    (of_crops,) = summary.kinds(RECIPE.model_copy(update={"branches": "crop", "texture": False}))
    assert torch.equal(of_crops, summary.maps["crop"].float())
    resize, crop = (replace(view, multiscale=view.multiscale[..., 2:]) for view in (batch.resize, batch.crop))
    of_one, of_other, again, _ = summary.kinds(RECIPE, (NetworkMaps(2, 0), NetworkMaps(3, 0)))
    assert torch.equal(of_other, FrameSummary.of(resize, crop).kinds(RECIPE)[0])
    assert of_one.shape == (2, 3, 4 * 2)
    assert torch.equal(again, of_texture)
    one, means, rest, again, _ = summary.kinds(RECIPE, networks := (NetworkMaps(2, 0), NetworkMaps(1, 2)))
    assert torch.equal(one, of_one)
    of_views = torch.split(of_other, 6, dim=-1)  # of each the mean and two deviations over a cell, then their spread
    assert torch.equal(means, torch.cat([view[..., :1] for view in of_views], dim=-1))
    assert torch.equal(rest, torch.cat([view[..., 1:] for view in of_views], dim=-1))
    assert torch.equal(again, of_texture)
    recipes = [RECIPE, *(RECIPE.model_copy(update={setting: False}) for setting in ("texture", "flat_texture"))]
    for recipe, has_texture, each in itertools.product(recipes, (True, False), ((), networks)):
        asked = summary if has_texture else replace(summary, textures={}, flat_textures={})
        assert len(kind_shares(recipe, each, has_texture=has_texture)) == len(asked.kinds(recipe, each))


def test_what_the_kernel_part_says_of_a_frame_is_added_to_its_quality() -> None:
    batch = random_batch(4, 3, 2)
    batch = replace(batch, frame_mask=torch.arange(3) < torch.tensor([[3], [3], [3], [2]]))
    regressor = make_regressor()
    alone = run(regressor, batch)  # the kernel part is not fitted yet
    kernel = regressor.kernel
    assert isinstance(kernel, KernelRidge)
    kinds = FrameSummary.of(batch.resize, batch.crop).kinds(RECIPE)
    kernel.set_landmarks([kind[:, 0] for kind in kinds])
    kernel.weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    told = kernel(kinds).masked_fill(~batch.frame_mask, 0.0)
    both = run(regressor, batch)
    assert told.std() > 0.1
    assert torch.allclose(both.frame_quality, alone.frame_quality + told, atol=1e-5)
    assert torch.allclose(both.score, alone.score + (told * alone.frame_weight).sum(-1), atol=1e-5)
    instead = run(regressor, replace(batch, kernel_quality=told + 1))
    assert torch.allclose(instead.score, both.score + 1, atol=1e-5)
