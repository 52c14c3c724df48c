"""``diffvqa import-controller`` and ``diffvqa models``, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ldm_material import below, ldm_controller
from stable_diffusion_material import build_unet, give_a_say, write_stable_diffusion

from diffvqa.pipeline.cli import main
from diffvqa.stages.diffusion.controller import Controller
from diffvqa.stages.diffusion.model_folder import hash_model_folder, load_model_folder
from diffvqa.stages.diffusion.weights import load_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("base") / "sd21")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from stable_diffusion_material import NARROW_2

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


def test_a_base_folder_can_be_given_its_controller_in_place(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(base, tmp_path / "sd21")
    arguments = ["import-controller", str(checkpoint), "--base", str(folder), "--out", str(folder), "--half"]
    assert main(arguments) == 0
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
