"""``diffvqa import-controller`` and ``diffvqa models``, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from benchmarks.ldm_material import below, ldm_controller
from benchmarks.stable_diffusion_material import build_unet, give_a_say, write_stable_diffusion

from diffvqa.pipeline._cli import main
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.folder_files import hash_model_folder
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._diffusion.weights import load_network


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("base") / "sd21")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.stable_diffusion_material import NARROW_2

    controller = Controller.from_unet(build_unet(NARROW_2), conditioning_channels=4)
    give_a_say(controller)
    path = tmp_path_factory.mktemp("official") / "general.ckpt"
    torch.save({"state_dict": below("control_model", ldm_controller(controller))}, path)
    controller.save_pretrained(path.with_name("expected"))
    return path


def test_an_imported_controller_makes_a_model_folder_that_loads(
    base: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapted"
    assert main(["import-controller", str(checkpoint), "--base", str(base), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"diffvqa reconstruct VIDEO --model {out}" in said
    model = load_model_folder(out)
    expected = load_network(Controller, checkpoint.with_name("expected")).state_dict()
    for name, tensor in model.controller.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    digest = hash_model_folder(out)
    assert main(["import-controller", str(checkpoint), "--base", str(base), "--out", str(out)]) == 2
    assert "already has a Controller" in capsys.readouterr().err
    assert hash_model_folder(out) == digest


def test_a_base_folder_can_be_given_its_controller_in_place(
    base: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(base, tmp_path / "sd21")
    arguments = ["import-controller", str(checkpoint), "--base", str(folder), "--out", str(folder), "--half"]
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    size = (folder / "controller/diffusion_pytorch_model.safetensors").stat().st_size
    parameters = sum(tensor.numel() for tensor in load_model_folder(folder).controller.parameters())
    assert size < 2.1 * parameters


def test_a_refused_checkpoint_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapted"
    for arguments in (["--base", "nano"], [], ["--base", str(tmp_path)]):
        assert main(["import-controller", str(checkpoint), *arguments, "--out", str(out)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not out.exists()


def test_models_lists_what_is_shipped_and_what_is_in_a_folder(
    base: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_model, tmp_path / "tiny")
    shutil.copytree(base, tmp_path / "sd21")
    broken = shutil.copytree(base, tmp_path / "xl")
    (broken / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    (tmp_path / "other").mkdir()
    assert main(["models", str(tmp_path), "--json"]) == 0
    models = {Path(model["path"]).name: model for model in json.loads(capsys.readouterr().out)}
    assert set(models) == {"nano", "sd21", "tiny", "xl"}
    assert models["nano"]["name"] == "nano"
    assert models["nano"]["has_controller"]
    loaded = load_model_folder(tmp_path / "tiny")
    assert models["tiny"]["weights_hash"] == hash_model_folder(tmp_path / "tiny")
    assert models["tiny"]["parameters"]["unet"] == sum(tensor.numel() for tensor in loaded.unet.parameters())
    assert models["tiny"]["parameters"]["vae"] == 0
    assert models["tiny"]["latent_channels"] == loaded.autoencoder.latent_channels
    sd = models["sd21"]
    assert (sd["latent_channels"], sd["block_size"], sd["view_multiple"]) == (4, 8, 64)
    assert sd["up_blocks"] == [128, 128, 64, 64]
    assert (sd["has_controller"], sd["weights_hash"]) == (False, None)
    assert "Stable Diffusion XL" in models["xl"]["error"]
    assert main(["models", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "cannot be used" in table
    assert "efficientnet-lite0" in table
    assert "nano" in table
    assert main(["models", str(tmp_path / "other")]) == 2
    assert "is no model folder, and holds none" in capsys.readouterr().err
