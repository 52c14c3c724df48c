from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from extraction_material import CPU, SimpleBackbone

from diffvqa.stages._backbones.combined import CombinedBackbone, NamedBackbone
from diffvqa.stages._backbones.interface import level_slices
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._errors import BackboneError, ModelFolderError
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._network_maps import NetworkMaps, network_maps
from diffvqa.stages._view_extractor import ViewExtractor


def test_a_combination_gives_what_its_parts_give(tiny_model: Path) -> None:
    views, seeds = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8), [4, 5, 6]
    names = [str(tiny_model), f"{tiny_model}-random"]

    def extractor(model: str) -> ViewExtractor:
        recipe = ExtractRecipe(model=model, view_size=32, grid=4, start_timestep=30)
        return ViewExtractor(load_backbone(recipe, Placement(CPU)), device=CPU)

    both, one, other = extractor("+".join(names)), extractor(names[0]), extractor(names[1])
    features, first, second = (each(views, seeds) for each in (both, one, other))
    assert features.latent is not None
    assert first.latent is not None
    np.testing.assert_array_equal(features.latent, first.latent)
    np.testing.assert_array_equal(features.multiscale, np.concatenate([first.multiscale, second.multiscale], axis=1))
    slices = level_slices(both.backbone.levels)
    assert next(iter(slices)) == "tiny/mid_block/mean"
    assert list(slices)[-1] == "tiny-random/residual/std"
    assert slices["tiny-random/residual/std"][1] == features.multiscale.shape[1]
    halves = [NetworkMaps(each.multiscale.shape[1] // 2, each.multiscale.shape[1] // 2) for each in (first, second)]
    assert network_maps(slices) == tuple(halves)
    assert network_maps(level_slices(one.backbone.levels)) == (halves[0],)
    assert list(both.backbone.fingerprint) == ["1.diffusion", "2.diffusion-random"]
    assert both.backbone.fingerprint["2.diffusion-random"] == other.backbone.fingerprint["diffusion-random"]


def test_the_latent_is_that_of_the_first_part_that_has_one() -> None:
    without, having = SimpleBackbone(latent=False, view_multiple=6), SimpleBackbone(view_multiple=4)
    both = CombinedBackbone([NamedBackbone("a", without), NamedBackbone("b", having)])
    assert both.latent_shape == having.latent_shape
    assert both.view_multiple == 12
    views = torch.zeros(2, 12, 12, 3, dtype=torch.uint8)
    features = both.extract(views, [7, 8])
    assert features.latent is not None
    assert features.latent[:, 0, 0, 0].tolist() == [7, 8]
    assert [level.name for level in both.levels] == ["a/colour", "a/seed", "b/colour", "b/seed"]
    neither = CombinedBackbone([NamedBackbone("a", without), NamedBackbone("b", without)])
    assert neither.latent_shape is None
    assert neither.extract(views, [7, 8]).latent is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nano+nano", "no combination of different models"),
        ("nano+", "no combination"),
        ("nano+absent", "no model 'absent'"),
        ("absent-random", "no model 'absent'"),
    ],
)
def test_what_cannot_be_loaded_is_named(model: str, said: str) -> None:
    with pytest.raises((BackboneError, ModelFolderError), match=said):
        load_backbone(ExtractRecipe(model=model), Placement(CPU))


def test_a_view_must_fit_the_networks(tiny_model: Path) -> None:
    with pytest.raises(BackboneError, match="view_size = 40 does not fit"):
        load_backbone(ExtractRecipe(model=str(tiny_model), view_size=40), Placement(CPU))
