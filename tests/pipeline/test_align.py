from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_material import write_photos

from diffvqa.pipeline._cli import main
from diffvqa.stages._denoiser_training.journal import read_losses
from diffvqa.stages._diffusion.folder_files import has_controller
from diffvqa.stages._diffusion.model_folder import load_model_folder

TINY = {
    "align.steps": "6",
    "align.batch_size": "2",
    "align.crop_size": "32",
    "align.held_out": "2",
    "align.learning_rate": "1e-3",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def align(*arguments: str, **changed: str) -> int:
    settings = {**TINY, **{name.replace("__", "."): value for name, value in changed.items()}}
    assignments = (part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
    return main(["align", *arguments, "--workers", "1", "--threads", "1", *assignments])


def test_align_trains_the_unet_of_a_model_on_and_goes_on_where_it_stopped(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "aligned"
    arguments = (str(photos), "--model", str(tiny_model), "--out", str(out))
    assert align(*arguments, "--max-minutes", "0") == 0
    assert "steps: 1 of 6" in capsys.readouterr().out
    assert align(*arguments) == 0
    shown = capsys.readouterr().out
    assert "steps: 6 of 6, 5 now" in shown
    assert f"next: diffvqa adapt PICTURES… --model {out}" in shown
    assert [row.step for row in read_losses(tmp_path / "aligned-training/align")] == list(range(6))
    assert not has_controller(out)
    before, after = (load_model_folder(folder, start_controller=True).unet for folder in (tiny_model, out))
    assert before.config.block_out_channels == after.config.block_out_channels
    assert not all(torch.equal(weights, after.state_dict()[name]) for name, weights in before.state_dict().items())
    assert align(*arguments, align__teacher="nano-random") == 2
    assert "origin" not in (error := capsys.readouterr().err)
    assert "holds another training: recipe.teacher was 'efficientnet-lite0' and is now 'nano-random'" in error


def test_what_is_wrong_is_said_in_one_line(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "aligned"
    for arguments, changed, expected in (
        (("--model", str(tiny_model), "--out", str(tiny_model)), {}, "is the model to begin with"),
        (("--model", "mega", "--out", str(out)), {}, "There is no model 'mega'"),
        (("--model", str(tiny_model), "--out", str(out)), {"align__teacher": "mega"}, "There is no model 'mega'"),
        (("--model", str(tiny_model), "--out", str(out)), {"align__crop_size": "40"}, "Use a multiple of 16"),
        (("--model", str(tiny_model), "--out", str(out)), {"align__at_zero": "0"}, "greater than 0"),
    ):
        assert align(str(photos), *arguments, **changed) == 2
        shown = capsys.readouterr().err.strip().splitlines()
        assert expected in shown[-1]
        assert not any("read pictures" in line for line in shown)  # which can take minutes
        assert not out.exists()
