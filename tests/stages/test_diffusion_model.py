from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffvqa.stages._denoiser_training.architecture import build_untrained
from diffvqa.stages._denoiser_training.recipe import Architecture
from diffvqa.stages._diffusion.autoencoder import PixelUnshuffleAutoencoder, to_model_range
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._errors import ModelFolderError

TINY = Architecture(widths=(16, 16, 16))


@given(block=st.sampled_from([1, 2, 4, 8]), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_the_autoencoder_loses_nothing(block: int, rows: int, columns: int) -> None:
    frames = torch.rand(2, 3, rows * block, columns * block) * 2 - 1
    autoencoder = PixelUnshuffleAutoencoder(block_size=block)
    latents = autoencoder.encode(frames)
    assert latents.shape == (2, autoencoder.latent_channels, rows, columns)
    assert torch.equal(autoencoder.decode(latents), frames)


def test_pixels_map_to_minus_one_to_one() -> None:
    assert to_model_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


@torch.inference_mode()
def test_an_untrained_controller_changes_nothing_bit_for_bit() -> None:
    model = build_untrained(TINY, seed=1)
    model.unet.eval()
    model.controller.eval()
    z_0, z_t = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8)
    t = torch.tensor([3, 700])
    alone = model.unet(z_t, t, model.null_prompt.expand(2, -1, -1)).sample
    assert torch.equal(model.predict_noise(z_t, t, z_0), alone)


@torch.inference_mode()
def test_the_two_convolutions_equal_one_over_the_concatenation() -> None:
    controller = build_untrained(TINY, seed=1).controller
    nn.init.normal_(controller.controlnet_cond_embedding.weight)
    z_t, z_0 = torch.randn(2, 48, 8, 8), torch.randn(2, 48, 8, 8)
    both = nn.Conv2d(96, 16, kernel_size=3, padding=1)
    both.weight.copy_(torch.cat([controller.conv_in.weight, controller.controlnet_cond_embedding.weight], dim=1))
    both.bias.copy_(controller.conv_in.bias)  # type: ignore[union-attr]  # it has one
    separate = controller.conv_in(z_t) + controller.controlnet_cond_embedding(z_0)
    torch.testing.assert_close(separate, both(torch.cat([z_t, z_0], dim=1)), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_folder_gives_back_the_same_model_the_controller_whole(tmp_path: Path) -> None:
    model = build_untrained(TINY, seed=2)
    for parameter in model.controller.parameters():
        nn.init.normal_(parameter, std=0.05)
    model.unet.eval()
    model.controller.eval()
    model.save(tmp_path)
    loaded = load_model_folder(tmp_path)
    assert isinstance(loaded.controller, Controller)
    z_0, z_t, t = torch.randn(1, 48, 8, 8), torch.randn(1, 48, 8, 8), torch.tensor([10])
    before = model.predict_noise(z_t, t, z_0)
    assert torch.equal(loaded.predict_noise(z_t, t, z_0), before)
    assert not torch.equal(before, model.predict_noise(z_t, t, z_0 + 1))


def test_half_precision_halves_the_folder_and_loads_as_float32(tmp_path: Path) -> None:
    model = build_untrained(TINY, seed=2)
    model.save(tmp_path / "full")
    model.save(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "unet/diffusion_pytorch_model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_model_folder(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.float32}


def test_the_hash_follows_the_weights_and_the_configuration(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert hash_model_folder(copy) == hash_model_folder(tiny_model)
    (copy / "README.md").write_text("a model card changes nothing")
    assert hash_model_folder(copy) == hash_model_folder(tiny_model)
    weights = copy / "controller/diffusion_pytorch_model.safetensors"
    stored = bytearray(weights.read_bytes())
    stored[-1] ^= 1
    weights.write_bytes(stored)
    assert hash_model_folder(copy) != hash_model_folder(tiny_model)


@pytest.mark.parametrize("part", ["unet/config.json", "controller/config.json", "null_prompt.safetensors"])
def test_a_missing_part_is_named(tiny_model: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / part).unlink()
    with pytest.raises(ModelFolderError, match=part):
        load_model_folder(copy)


def test_missing_weights_are_an_error_and_not_random_ones(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "controller/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"controller holds no diffusion_pytorch_model\.safetensors"):
        load_model_folder(copy)


def test_the_shipped_model_is_found_by_name_and_loads() -> None:
    folder = locate_model_folder("nano")
    model = load_model_folder(folder)
    assert model.unet.config.in_channels == model.autoencoder.latent_channels
    assert any(parameter.abs().max() > 0 for parameter in model.controller.controlnet_mid_block.parameters())
    with pytest.raises(ModelFolderError, match="one of: nano"):
        locate_model_folder("mega")
