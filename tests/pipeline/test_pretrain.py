from __future__ import annotations

from pathlib import Path

import pytest
from training_material import write_photos

from diffvqa.pipeline.cli import main
from diffvqa.stages.denoiser_training.journal import read_losses
from diffvqa.stages.diffusion.model_folder import load_model_folder

TINY = {
    "architecture.widths": "[16, 16, 16]",
    "pretrain.steps": "6",
    "pretrain.batch_size": "2",
    "pretrain.crop_size": "32",
    "pretrain.held_out": "2",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def pretrain(*arguments: str, **changed: str) -> int:
    settings = {**TINY, **{name.replace("__", "."): value for name, value in changed.items()}}
    return main(
        [
            *("pretrain", *arguments, "--workers", "1"),
            *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
        ]
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_pretrain_makes_a_model_of_photographs_and_videos_and_goes_on_where_it_stopped(
    photos: Path, carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert pretrain(str(photos), str(carphone), "--out", str(out), "--max-minutes", "0") == 0
    printed = capsys.readouterr()
    assert "steps: 1 of 6" in printed.out
    assert "run the same command again to go on" in printed.out
    assert pretrain(str(photos), str(carphone), "--out", str(out)) == 0
    assert "steps: 6 of 6, 5 now" in capsys.readouterr().out
    assert [row.step for row in read_losses(tmp_path / "model-training/pretrain")] == list(range(6))
    assert load_model_folder(out, start_controller=True).unet.config.block_out_channels == [16, 16, 16]
    assert pretrain(str(photos), str(carphone), "--out", str(out), pretrain__steps="8") == 2
    assert "recipe.steps was 6 and is now 8" in capsys.readouterr().err


def test_what_is_wrong_is_said_in_one_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "model")
    for arguments, changed, expected in (
        ((str(tmp_path / "nowhere"),), {}, "nowhere is not there"),
        ((str(photos),), {"pretrain__crop_size": "128"}, "at least 128 pixels"),
        ((str(photos),), {"pretrain__degradations": "['fog']"}, "there is no degradation 'fog'"),
        ((str(photos),), {"pretrain__stepps": "1"}, "Did you mean 'steps'?"),
        ((str(photos),), {"architecture__widths": "[16, 20, 16]"}, "width 20 is no multiple"),
        ((str(photos), "--start-from", "mega"), {}, "There is no model 'mega'"),
    ):
        assert pretrain(*arguments, "--out", out, **changed) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert expected in line
        assert not Path(out).exists()


def test_show_config_writes_a_recipe_that_can_be_given_back(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(str(photos), "--out", "x", "--show-config") == 0
    shown = capsys.readouterr().out
    (tmp_path / "recipe.toml").write_text(shown)
    assert (
        main(["pretrain", str(photos), "--out", "x", "--config", str(tmp_path / "recipe.toml"), "--show-config"]) == 0
    )
    assert capsys.readouterr().out == shown
