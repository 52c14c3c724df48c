from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from benchmarks.stable_diffusion_material import (
    NARROW_1,
    NARROW_2,
    SCHEDULER,
    give_a_say,
    write_json,
    write_stable_diffusion,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._diffusion import hub
from diffvqa.stages._diffusion.denoising import denoise, denoising_timesteps, noise_generators
from diffvqa.stages._diffusion.folder_files import hash_model_folder, locate_model_folder
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.model_folder import load_model_folder, save_adapted
from diffvqa.stages._diffusion.schedule import load_schedule
from diffvqa.stages._errors import ModelFolderError
from diffvqa.stages._extract_recipe import ExtractRecipe

WEIGHTS = "diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model as it comes, in half precision, its null prompt not made yet."""
    return write_stable_diffusion(tmp_path_factory.mktemp("models") / "sd21")


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "adapted"
    copy = shutil.copytree(base, out.with_name("base"))
    controller = load_model_folder(copy, start_controller=True).controller
    give_a_say(controller)
    save_adapted(controller, copy, out, half=True)
    return out


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda folder: shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuse every connection; return where to."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> NoReturn:
        tried.append(arguments)
        raise OSError("the network is out of bounds")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def change(path: Path, **changes: object) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


@torch.inference_mode()
def test_an_adapted_folder_gives_what_diffusers_networks_give(adapted: Path) -> None:
    model = load_model_folder(adapted)
    vae = AutoencoderKL.from_pretrained(adapted / "vae", variant="fp16", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(adapted / "unet", variant="fp16", torch_dtype=torch.float32)
    frames = torch.rand(2, 3, 64, 64) * 2 - 1
    z_0 = model.autoencoder.encode(frames)
    assert z_0.shape == (2, 4, 8, 8)
    assert (model.autoencoder.latent_channels, model.autoencoder.block_size, model.frame_multiple) == (4, 8, 64)
    assert torch.equal(z_0, vae.encode(frames).latent_dist.mean * 0.18215)
    assert torch.equal(model.autoencoder.decode(z_0), vae.decode(z_0 / 0.18215).sample)
    t, condition = torch.tensor([3, 700]), model.null_prompt.expand(2, -1, -1)
    skips, middle = model.controller(z_0, t, condition, controlnet_cond=z_0, return_dict=False)
    alone = unet(z_0, t, condition).sample
    together = unet(
        z_0, t, condition, down_block_additional_residuals=skips, mid_block_additional_residual=middle
    ).sample
    assert torch.equal(model.predict_noise(z_0, t, z_0), together)
    assert not torch.allclose(together, alone, atol=1e-2)


@torch.inference_mode()
def test_a_started_controller_changes_nothing_bit_for_bit(base: Path) -> None:
    for folder in (base, write_stable_diffusion(base.with_name("sd15"), NARROW_1, half=False)):
        model = load_model_folder(folder, start_controller=True)
        z_0, z_t, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([5, 999])
        alone = model.unet(z_t, t, model.null_prompt.expand(2, -1, -1)).sample
        assert torch.equal(model.predict_noise(z_t, t, z_0), alone)


@torch.inference_mode()
def test_save_and_load_give_the_same_output(adapted: Path, tmp_path: Path) -> None:
    def reconstruct(model: DiffusionModel) -> torch.Tensor:
        z_0 = model.autoencoder.encode(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
        return denoise(model, z_0, denoising_timesteps(2, 999), noise_generators([3]))

    model = load_model_folder(adapted)
    model.save(tmp_path / "again")
    assert torch.equal(reconstruct(load_model_folder(tmp_path / "again")), reconstruct(model))


@torch.inference_mode()
def test_the_null_prompt_is_made_once_from_the_text_encoder(base: Path, copy_of: Callable[[Path], Path]) -> None:
    from transformers import CLIPTextModel

    folder = copy_of(base)
    (folder / "null_prompt.safetensors").unlink(missing_ok=True)
    made = load_model_folder(folder, start_controller=True).null_prompt
    encoder = CLIPTextModel.from_pretrained(str(folder / "text_encoder"), variant="fp16", dtype=torch.float32)
    tokens = torch.tensor([[3, 4, *[0] * 75]])  # begin, end, and 75 times the word that pads
    torch.testing.assert_close(made, encoder(tokens).last_hidden_state)
    assert torch.equal(load_file(folder / "null_prompt.safetensors")["null_prompt"], made)
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    assert torch.equal(load_model_folder(folder, start_controller=True).null_prompt, made)


def test_a_hub_snapshot_is_left_as_it_is(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[object]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    snapshot = tmp_path / "hub/models--some--model/snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (snapshot / "null_prompt.safetensors").unlink(missing_ok=True)
    reference = snapshot.parent.parent / "refs/main"
    reference.parent.mkdir()
    reference.write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    before = sorted(path.relative_to(snapshot) for path in snapshot.rglob("*"))
    folder = locate_model_folder("some/model")
    assert folder.resolve() == snapshot.resolve()
    first = load_model_folder(folder, start_controller=True).null_prompt
    assert sorted(path.relative_to(snapshot) for path in snapshot.rglob("*")) == before
    assert len(list((tmp_path / "mine/diffvqa/null-prompts").iterdir())) == 1
    assert torch.equal(load_model_folder(folder, start_controller=True).null_prompt, first)
    assert no_network == []


def test_a_folder_that_cannot_be_written_to_is_used_all_the_same(
    base: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffvqa.cache._errors import OutputError
    from diffvqa.stages._diffusion import null_prompt

    folder = copy_of(base)
    (folder / "null_prompt.safetensors").unlink(missing_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() == 0:  # root may write anywhere
        write = null_prompt.write_null_prompt

        def write_elsewhere(embedding: torch.Tensor, path: Path) -> None:
            if path.is_relative_to(folder):
                raise OutputError(f"{path} cannot be written to.", "")
            write(embedding, path)

        monkeypatch.setattr(null_prompt, "write_null_prompt", write_elsewhere)
    assert load_model_folder(folder, start_controller=True).null_prompt.shape == (1, 77, 32)
    assert not (folder / "null_prompt.safetensors").exists()
    assert len(list((tmp_path / "mine/diffvqa/null-prompts").iterdir())) == 1
    folder.chmod(stat.S_IRWXU)


def test_without_transformers_one_line_says_what_to_install(
    base: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    folder = copy_of(base)
    (folder / "null_prompt.safetensors").unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelFolderError, match=r"needs the package transformers.*diffvqa\[sd\]"):
        load_model_folder(folder, start_controller=True)


def test_loading_never_calls_out(adapted: Path, copy_of: Callable[[Path], Path], no_network: list[object]) -> None:
    folder = copy_of(adapted)
    load_model_folder(folder)
    load_model_folder(locate_model_folder("nano"))
    hash_model_folder(folder)
    assert no_network == []


def test_a_model_that_is_nowhere_is_one_line(no_network: list[object]) -> None:
    with pytest.raises(ModelFolderError, match="'nobody/nothing' is not on this machine and cannot be fetched"):
        locate_model_folder("nobody/nothing")
    assert no_network  # the hub was asked for, and only for this
    tried = len(no_network)
    with pytest.raises(ModelFolderError, match="There is no model 'tests/nothing'"):
        locate_model_folder("tests/nothing")
    assert len(no_network) == tried  # a path that does not exist is no hub id


def test_of_a_hub_model_only_what_is_needed_is_fetched(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is played by a folder that also holds all that others would want of it."""
    import fnmatch

    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    shop = shutil.copytree(base, tmp_path / "shop")
    shutil.copytree(base / "unet", shop / "safety_checker")
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "v1-5-pruned.ckpt",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
    ):
        (shop / name).write_text("large")

    def download(_: str, **arguments: Any) -> str:
        if arguments.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        for path in shop.rglob("*"):
            name = path.relative_to(shop).as_posix()
            wanted, unwanted = (
                any(fnmatch.fnmatch(name, pattern) for pattern in arguments[key])
                for key in ("allow_patterns", "ignore_patterns")
            )
            if path.is_file() and wanted and not unwanted:
                (tmp_path / "fetched" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tmp_path / "fetched" / name)
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = hub.hub_folder("some/model@fp16")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {f"unet/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.fp16.safetensors", "tokenizer/vocab.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".ckpt")) or "safety" in name or "non_ema" in name}
    load_model_folder(folder, start_controller=True)


def test_a_base_model_says_how_to_adapt_it(base: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"has no Controller.*diffvqa adapt.*diffvqa import-controller"):
        load_model_folder(base)
    with pytest.raises(ModelFolderError, match="has no Controller"):
        hash_model_folder(base)


def test_the_hash_is_of_what_counts(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(adapted)
    digest = hash_model_folder(folder)
    (folder / "unet/notes.json").write_text("{}")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker/model.safetensors").write_bytes(b"x")
    assert hash_model_folder(folder) == digest
    path = folder / "null_prompt.safetensors"
    save_file({"null_prompt": load_file(path)["null_prompt"] + 1}, path)
    assert hash_model_folder(folder) != digest


@pytest.mark.parametrize("name", ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_any_sampler_gives_the_papers_schedule(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "scheduler_config.json", {**SCHEDULER, "_class_name": name, "prediction_type": "epsilon"})
    schedule = load_schedule(tmp_path)
    expected = {"timestep_spacing": "linspace", "clip_sample": False, "variance_type": "fixed_small"}
    assert {key: schedule.config[key] for key in expected} == expected
    torch.testing.assert_close(schedule.betas, torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def test_the_names_of_older_folders_are_understood(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    """Stable Diffusion's own autoencoders were saved with query, key, value and proj_attn."""
    folder = copy_of(adapted)
    path = folder / "vae" / WEIGHTS
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(path)
    for new, old in former.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert sum(".query." in name for name in tensors) == 4
    save_file(tensors, path)
    ours, before = (load_model_folder(each).autoencoder for each in (folder, adapted))
    frames = torch.rand(1, 3, 64, 64)
    assert torch.equal(ours.encode(frames), before.encode(frames))


def test_shards_are_read_together(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(adapted)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", variant="fp16", torch_dtype=torch.float32)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="10MB")
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    expected = unet.state_dict()
    for name, tensor in load_model_folder(folder).unet.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    shards[0].unlink()
    with pytest.raises(ModelFolderError, match=f"{shards[0].name} is missing"):
        load_model_folder(folder)


def test_pickled_weights_alone_are_refused(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(adapted)
    (folder / "unet" / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"\.bin alone.*save_pretrained"):
        load_model_folder(folder)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(adapted)
    path = folder / "unet" / WEIGHTS
    tensors = load_file(path)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :3].contiguous()
    save_file(tensors, path)
    with pytest.raises(ModelFolderError, match=r"'conv_in.weight' has the shape 64 x 3 x 3 x 3.*64 x 4 x 3 x 3"):
        load_model_folder(folder)
    del tensors["conv_in.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelFolderError, match=r"no tensor 'conv_in.weight'"):
        load_model_folder(folder)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match=r"safetensors is damaged"):
        load_model_folder(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction type is 'v_prediction'"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 4000}, "4000 timesteps"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "noise schedule of this PNDM"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "unheard"}, "is no noise schedule"),
        ("scheduler/scheduler_config.json", {"beta_start": "0.00085"}, "is no noise schedule"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "holds Stable Diffusion XL"),
        ("model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "Stable Diffusion XL refiner"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "an inpainting model"),
        ("unet/config.json", {"in_channels": 9}, "an inpainting model"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "holds Stable Diffusion XL"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "class UNet2DModel, not UNet2DConditionModel"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "class AutoencoderTiny, not AutoencoderKL"),
        ("vae/config.json", {"shift_factor": 0.1}, "autoencoders with shift_factor"),
        ("vae/config.json", {"latent_channels": 16}, "tensor 'encoder.conv_out.weight' has the shape 8 x"),
        ("unet/config.json", {"cross_attention_dim": 48}, "attn2.to_k.weight' has the shape 64 x 32"),
        ("controller/config.json", {"_class_name": "ControlNetModel"}, "class ControlNetModel, not Controller"),
        ("controller/config.json", {"attention_head_dim": 2}, "its attention_head_dim is 2, that of unet/ is"),
    ],
)
def test_what_cannot_be_used_is_named(
    adapted: Path, copy_of: Callable[[Path], Path], part: str, changes: dict[str, object], message: str
) -> None:
    folder = copy_of(adapted)
    write_json(folder / "model_index.json", {})
    change(folder / part, **changes)
    with pytest.raises(ModelFolderError, match=message) as raised:
        load_model_folder(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "part",
    ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", f"vae/{WEIGHTS}", f"unet/{WEIGHTS}"],
)
def test_every_missing_part_is_named(adapted: Path, copy_of: Callable[[Path], Path], part: str) -> None:
    folder = copy_of(adapted)
    (folder / part).unlink()
    with pytest.raises(ModelFolderError, match=part.partition("/")[0]):
        load_model_folder(folder)


def test_the_null_prompt_must_fit_the_u_net(adapted: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(adapted)
    save_file({"null_prompt": torch.zeros(1, 77, NARROW_2.text_width + 1)}, folder / "null_prompt.safetensors")
    with pytest.raises(ModelFolderError, match="text condition 32 wide, the null prompt has 33"):
        load_model_folder(folder)


def test_features_of_stable_diffusion_have_its_shapes(adapted: Path) -> None:
    """Of a 64-pixel view: a latent of 4 x 8 x 8, the maps of five blocks and the residual, trained or random."""
    recipe = ExtractRecipe(model=str(adapted), view_size=64, grid=2, up_blocks="all")
    views = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    for model, kind in ((str(adapted), "diffusion"), (f"{adapted}-random", "diffusion-random")):
        chosen = recipe.model_copy(update={"model": model})
        backbone = load_backbone(chosen, Placement(torch.device("cpu")))
        assert backbone.latent_shape == (4, 8, 8)
        assert [level.channels for level in backbone.levels] == [128, 128, 128, 64, 64, 4] * 2
        assert list(backbone.fingerprint) == [kind]
        with torch.inference_mode():
            features = backbone.extract(views, [1, 2])
        assert features.latent is not None
        assert features.latent.shape == (2, 4, 8, 8)
        assert features.multiscale.shape == (2, 2 * (128 + 128 + 128 + 64 + 64 + 4), 2, 2)


@torch.inference_mode()
def test_each_up_blocks_map_is_twice_as_fine_down_to_the_latents_grid(adapted: Path) -> None:
    model = load_model_folder(adapted)
    shapes: list[tuple[int, ...]] = []
    for block in model.unet.up_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    z_0 = torch.randn(1, 4, 16, 16)  # a view of 128 x 128 pixels
    denoise(model, z_0, [0], noise_generators([0]))
    assert shapes == [(1, 128, 4, 4), (1, 128, 8, 8), (1, 64, 16, 16), (1, 64, 16, 16)]
