from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.ldm_material import below, ldm_autoencoder, ldm_clip, ldm_controller, ldm_open_clip, ldm_unet
from benchmarks.stable_diffusion_material import NARROW_1, NARROW_2, Shape, build_autoencoder, build_unet, give_a_say
from safetensors.torch import save_file
from torch import Tensor

from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.ldm_base import convert_whole_model
from diffvqa.stages._diffusion.ldm_checkpoint import convert_controller, open_checkpoint
from diffvqa.stages._errors import CheckpointError, ModelFolderError

SHAPES = pytest.mark.parametrize("shape", [NARROW_1, NARROW_2], ids=["1.x", "2.x"])


def build_controller(shape: Shape = NARROW_2) -> tuple[Any, Any]:
    """Return a U-Net and a Controller of which no two tensors are alike."""
    torch.manual_seed(5)
    unet = build_unet(shape)
    controller = Controller.from_unet(unet, conditioning_channels=4).eval()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    give_a_say(controller)
    return unet, controller


@pytest.fixture(scope="module")
def narrow() -> tuple[Any, Any]:
    return build_controller()


def assert_equal(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


@SHAPES
@torch.inference_mode()
def test_a_controller_is_converted_exactly_tensor_by_tensor(shape: Shape, tmp_path: Path) -> None:
    unet, controller = build_controller(shape)
    path = tmp_path / "general.ckpt"
    torch.save(below("control_model", ldm_controller(controller)), path)
    converted = convert_controller(open_checkpoint(path), unet.config, str(path))
    assert_equal(converted.state_dict(), controller.state_dict())
    z_t, z_0, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([400])
    condition = torch.randn(1, 7, shape.text_width)
    skips, middle = converted(z_t, t, condition, controlnet_cond=z_0, return_dict=False)
    expected_skips, expected_middle = controller(z_t, t, condition, controlnet_cond=z_0, return_dict=False)
    assert torch.equal(middle, expected_middle)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(skips, expected_skips, strict=True))


def test_the_first_half_of_the_first_convolution_is_for_z_t(narrow: tuple[Any, Any]) -> None:
    unet, controller = narrow
    tensors = ldm_controller(controller)
    converted = convert_controller(tensors, unet.config, "file")
    first = tensors["input_blocks.0.0.weight"]
    assert torch.equal(converted.conv_in.weight, first[:, :4])
    assert torch.equal(converted.controlnet_cond_embedding.weight, first[:, 4:])


@pytest.mark.parametrize(
    "wrapping", ["bare", "prefixed", "state_dict", "module", "beside_others", "safetensors", "old"]
)
def test_every_form_of_checkpoint_is_understood(narrow: tuple[Any, Any], tmp_path: Path, wrapping: str) -> None:
    unet, controller = narrow
    tensors = ldm_controller(controller)
    path = tmp_path / ("c.safetensors" if wrapping == "safetensors" else "c.ckpt")
    prefixed = below("control_model", tensors)
    match wrapping:
        case "bare":
            torch.save(tensors, path)
        case "prefixed":
            torch.save(OrderedDict(prefixed), path)
        case "state_dict":
            torch.save({"epoch": 3, "global_step": 100, "state_dict": prefixed, "hyper": {"rate": 1e-4}}, path)
        case "module":
            torch.save({"model": below("module", prefixed)}, path)
        case "beside_others":
            others = {"model.diffusion_model.out.2.bias": torch.zeros(4), "betas": torch.zeros(1000)}
            torch.save({"state_dict": {**others, **prefixed, "preprocess_model.a.weight": torch.zeros(1)}}, path)
        case "safetensors":
            save_file(prefixed, path)
        case "old":
            torch.save(prefixed, path, _use_new_zipfile_serialization=False)
    converted = convert_controller(open_checkpoint(path), unet.config, str(path))
    assert_equal(converted.state_dict(), controller.state_dict())


@SHAPES
@torch.inference_mode()
def test_a_whole_model_is_converted_exactly_tensor_by_tensor(shape: Shape) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    unet, controller = build_controller(shape)
    autoencoder = build_autoencoder(shape)
    config = CLIPTextConfig(
        vocab_size=11,
        hidden_size=shape.text_width,
        intermediate_size=4 * shape.text_width,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=77,
        hidden_act="gelu" if shape.linear else "quick_gelu",
    )
    encoder: Any = CLIPTextModel(config).eval()  # type: ignore[no-untyped-call]  # transformers' own signature
    text = ldm_open_clip(encoder) if shape.linear else ldm_clip(encoder)
    checkpoint = {
        **below("model.diffusion_model", ldm_unet(unet)),
        **below("first_stage_model", ldm_autoencoder(autoencoder)),
        "first_stage_model.loss.logvar": torch.zeros(1),
        **below("cond_stage_model.model" if shape.linear else "cond_stage_model.transformer", text),
        **below("control_model", ldm_controller(controller)),
        "alphas_cumprod": torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0),
    }
    model = convert_whole_model(checkpoint, "general.ckpt")
    assert_equal(model.unet.state_dict(), unet.state_dict())
    assert_equal(model.controller.state_dict(), controller.state_dict())
    assert_equal(model.autoencoder.network.state_dict(), autoencoder.state_dict())
    assert model.unet.config.attention_head_dim == unet.config.attention_head_dim
    padding = 0 if shape.linear else 10
    expected = encoder(torch.tensor([[9, 10, *[padding] * 75]])).last_hidden_state
    torch.testing.assert_close(model.null_prompt, expected)
    checkpoint["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    with pytest.raises(CheckpointError, match="another noise schedule"):
        convert_whole_model(checkpoint, "general.ckpt")


class Payload:
    """Would leave a file behind if a program unpickled it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("plain", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path, plain: bool) -> None:
    path, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    content = {"state_dict": {"control_model.zero_convs.0.0.weight": torch.zeros(1)}, "callbacks": Payload(trace)}
    if plain:
        path.write_bytes(pickle.dumps(Payload(trace)))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="could run code when opened, so it was not") as raised:
        open_checkpoint(path)
    assert "\n" not in str(raised.value)
    assert not trace.exists()
    if not plain:
        assert "mkdir" in str(raised.value)


def test_other_files_are_one_line_each(narrow: tuple[Any, Any], tmp_path: Path) -> None:
    unet, controller = narrow
    for name, content, message in (
        ("noise.ckpt", b"\x01\x02\x03", "no checkpoint that can be read|could run code"),
        ("noise.safetensors", b"\x01\x02\x03", "no checkpoint that can be read"),
        ("empty.ckpt", b"", "no checkpoint that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as raised:
            open_checkpoint(tmp_path / name)
        assert "\n" not in str(raised.value)
    with pytest.raises(CheckpointError, match="There is no file"):
        open_checkpoint(tmp_path / "gone.ckpt")
    torch.save({"epoch": 3}, tmp_path / "numbers.ckpt")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        open_checkpoint(tmp_path / "numbers.ckpt")
    with pytest.raises(CheckpointError, match=r"holds no Controller.*control_model\.zero_convs"):
        convert_controller({"a": torch.zeros(1)}, unet.config, "file")
    with pytest.raises(CheckpointError, match=r"no U-Net.*--base"):
        convert_whole_model(below("control_model", ldm_controller(controller)), "file")


def test_what_does_not_fit_the_base_model_is_named(narrow: tuple[Any, Any]) -> None:
    unet, controller = narrow
    tensors = ldm_controller(controller)
    with pytest.raises(ModelFolderError, match=r"'conv_in\.weight' has the shape 64 x 4 x 3 x 3; .* asks for 128 x 4"):
        convert_controller(tensors, {**unet.config, "block_out_channels": (128, 128, 128, 128)}, "file")
    with pytest.raises(ModelFolderError, match=r"no tensor 'controlnet_down_blocks\.5\.weight'"):
        convert_controller({k: v for k, v in tensors.items() if k != "zero_convs.5.0.weight"}, unet.config, "file")
    ordinary = {**tensors, "input_blocks.0.0.weight": tensors["input_blocks.0.0.weight"][:, :4]}
    with pytest.raises(
        CheckpointError, match=r"an ordinary ControlNet: its first convolution takes 4 channels.* takes 8"
    ):
        convert_controller(ordinary, unet.config, "file")
    with pytest.raises(CheckpointError, match=r"holds 1 tensors that no Stable Diffusion has, such as label_emb\.0\.0"):
        convert_controller({**tensors, "label_emb.0.0.weight": torch.zeros(1)}, unet.config, "file")
