"""The CNN backbone against the package that its weights were published for."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from diffvqa.stages._backbones import efficientnet
from diffvqa.stages._backbones.efficientnet import EfficientNetBackbone
from diffvqa.stages._backbones.efficientnet_lite import EfficientNetLite0, normalised
from diffvqa.stages._backbones.interface import level_slices
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._errors import BackboneError
from diffvqa.stages._extract_recipe import ExtractRecipe

CPU = Placement(torch.device("cpu"))
KEPT_BLOCKS = (0, 2, 4, 10, 15)
TABBY, TIGER_CAT, EGYPTIAN_CAT, CUP, ESPRESSO = 281, 282, 285, 968, 967


@pytest.fixture(scope="module")
def reference() -> EfficientNet:
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(efficientnet._find_weights(), weights_only=True))
    return network.eval()


def squares(side: int) -> NDArray[np.uint8]:
    """Return (2, side, side, 3): a cat and a cup of coffee."""
    pictures = []
    photographs: list[NDArray[np.uint8]] = [data.chelsea(), data.coffee()]  # type: ignore[no-untyped-call]
    for photograph in photographs:
        height, width = photograph.shape[:2]
        extent = min(height, width)
        top, left = (height - extent) // 2, (width - extent) // 2
        centre = Image.fromarray(photograph[top : top + extent, left : left + extent])
        pictures.append(np.asarray(centre.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(pictures)


# The reference pads for pictures of 224 pixels alone.
def test_its_maps_are_those_of_the_reference(reference: EfficientNet) -> None:
    views = torch.from_numpy(squares(224))
    expected: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _, __, output: expected.append(output)) for block in reference._blocks
    ]
    with torch.inference_mode():
        reference.extract_features(normalised(views))
        features = load_backbone(ExtractRecipe(model="efficientnet-lite0", view_size=224, grid=7), CPU).extract(
            views, [0, 0]
        )
    for handle in handles:
        handle.remove()
    assert features.latent is None
    kept = [expected[index] for index in KEPT_BLOCKS]
    means = torch.cat([torch.nn.functional.adaptive_avg_pool2d(maps, 7) for maps in kept], dim=1)
    torch.testing.assert_close(features.multiscale[:, : means.shape[1]], means, rtol=1e-4, atol=1e-4)


def test_pictures_are_normalised_as_the_weights_expect(reference: EfficientNet) -> None:
    with torch.inference_mode():
        likelihoods = reference(normalised(torch.from_numpy(squares(224)))).softmax(dim=1)
    cat, coffee = likelihoods
    assert cat[[TABBY, TIGER_CAT, EGYPTIAN_CAT]].sum() > 0.8
    assert coffee[[CUP, ESPRESSO]].sum() > 0.9


def test_levels_and_shapes_of_a_view_of_another_size() -> None:
    backbone = load_backbone(ExtractRecipe(model="efficientnet-lite0", view_size=128), CPU)
    with torch.inference_mode():
        features = backbone.extract(torch.from_numpy(squares(128)), [1, 2])
        other_seeds = backbone.extract(torch.from_numpy(squares(128)), [3, 4])
    assert features.multiscale.shape == (2, 2 * (16 + 24 + 40 + 112 + 320), 4, 4)
    assert torch.equal(features.multiscale, other_seeds.multiscale)
    assert backbone.latent_shape is None
    slices = level_slices(backbone.levels)
    assert slices["stages.6/mean"] == (192, 512)
    assert slices["stages.0/std"] == (512, 528)


@pytest.mark.parametrize("extent", [31, 32, 33])
def test_odd_pictures_keep_the_size_that_same_padding_gives(extent: int) -> None:
    maps = EfficientNetLite0().eval()(torch.zeros(1, 3, extent, 64))
    assert [level.shape[-2] for level in maps] == [-(-extent // divisor) for divisor in (2, 4, 8, 16, 16, 32, 32)]


def test_it_combines_with_a_diffusion_model(tiny_model: Path) -> None:
    recipe = ExtractRecipe(model=f"{tiny_model}+efficientnet-lite0", view_size=32, grid=4)
    backbone = load_backbone(recipe, CPU)
    with torch.inference_mode():
        features = backbone.extract(torch.from_numpy(squares(32)), [1, 2])
    assert features.latent is not None
    assert backbone.levels[-1].name == "efficientnet-lite0/stages.6/std"
    assert list(backbone.fingerprint) == ["1.diffusion", "2.efficientnet-lite0"]


def test_without_the_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_WEIGHTS_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(BackboneError, match="not installed") as caught:
        EfficientNetBackbone(ExtractRecipe(), CPU)
    assert "diffvqa[cnn]" in str(caught.value.hint)


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "damaged_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights = Path(efficientnet._find_weights())
    (package / "models" / weights.name).write_bytes(weights.read_bytes()[:-1])
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.setattr(efficientnet, "_WEIGHTS_PACKAGE", package.name)
    with pytest.raises(BackboneError, match="is damaged"):
        EfficientNetBackbone(ExtractRecipe(), CPU)
