from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from training_material import write_photos

from diffvqa.pipeline._adapt import GRID_FILE, QUALITY_FILE
from diffvqa.pipeline._cli import main
from diffvqa.stages._denoiser_training.journal import read_losses
from diffvqa.stages._diffusion.folder_files import has_controller
from diffvqa.stages._diffusion.model_folder import load_model_folder

TINY = {
    "adapt.steps": "6",
    "adapt.batch_size": "2",
    "adapt.crop_size": "32",
    "adapt.held_out": "2",
    "adapt.reconstructed": "1",
    "adapt.reconstruct_steps": "2",
}
KINDS = ["as they are", "blur", "noise", "low_light", "jpeg", "h264", "downscale"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def adapt(*arguments: str, **changed: str) -> int:
    settings = {**TINY, **{name.replace("__", "."): value for name, value in changed.items()}}
    return main(
        [
            *("adapt", *arguments, "--workers", "1"),
            *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
        ]
    )


def test_adapt_gives_a_base_folder_a_controller_and_measures_what_it_reconstructs(
    photos: Path, carphone: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    load_model_folder(tiny_model).save(base, controller=False)
    assert adapt(str(photos), str(carphone), "--model", str(base), "--out", str(tmp_path / "adapted")) == 0
    shown = capsys.readouterr().out
    assert "PSNR adapted" in shown
    assert "low light" in shown
    assert not has_controller(base)
    adapted = load_model_folder(tmp_path / "adapted")
    assert adapted.controller.controlnet_mid_block.weight.abs().max() > 0
    journal = tmp_path / "adapted-training/adapt"
    assert [row.step for row in read_losses(journal)] == list(range(6))
    figures = json.loads((journal / QUALITY_FILE).read_text())
    assert list(figures["adapted"]) == list(figures["without_controller"]) == KINDS
    assert set(figures["adapted"]["blur"]) == {"psnr", "ssim"}
    with Image.open(journal / GRID_FILE) as grid:
        assert grid.size == (3 * 32 + 2 * 4, 7 * 32 + 6 * 4)


def test_by_default_the_model_itself_gets_the_controller_and_it_goes_on_where_it_stopped(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    load_model_folder(tiny_model).save(base, controller=False)
    assert adapt(str(photos), "--model", str(base), "--max-minutes", "0") == 0
    assert "steps: 1 of 6" in capsys.readouterr().out
    assert has_controller(base)
    assert adapt(str(photos), "--model", str(base)) == 0
    assert "steps: 6 of 6, 5 now" in capsys.readouterr().out
    assert adapt(str(photos), "--model", str(base), adapt__reconstruct_start="300") == 0
    measured_again = capsys.readouterr().out
    assert "2 steps from t = 300" in measured_again
    assert "steps: 6 of 6, 0 now" in measured_again
    assert adapt(str(photos), "--model", str(base), "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_what_is_wrong_is_said_in_one_line(photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, changed, expected in (
        (("--model", "nano"), {}, "The shipped model 'nano' is not written to"),
        (("--model", "mega"), {}, "There is no model 'mega'"),
        (("--model", str(tiny_model)), {"adapt__crop_size": "40"}, "Use a multiple of 16"),
        (("--model", str(tiny_model)), {"adapt__reconstruct_start": "1000"}, "less than or equal to 999"),
    ):
        assert adapt(str(photos), *arguments, **changed) == 2
        assert expected in capsys.readouterr().err.strip().splitlines()[-1]


def test_reconstruct_shows_the_frames_of_a_video_and_tells_their_psnr(
    tiny_model: Path, carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "reconstruct",
        str(carphone),
        "--model",
        str(tiny_model),
        "--frames",
        "3",
        "--steps",
        "2",
        "--size",
        "64",
    )
    for name in ("shown.png", "shown.mp4"):
        assert main([*arguments, "--out", str(tmp_path / name), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert len(document["psnr"]) == len(document["frames"]) == 3
        assert all(0 < value < 60 for value in document["psnr"])
    with Image.open(tmp_path / "shown.png") as grid:
        assert grid.size == (3 * 64 + 2 * 4, 3 * 48 + 2 * 4)
    with av.open(str(tmp_path / "shown.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3
    assert frames[0].shape == (48, 200, 3)
    assert main([*arguments, "--out", str(tmp_path / "again.png")]) == 0
    assert capsys.readouterr().out.startswith("frame ")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "shown.png").read_bytes()
    assert main([*arguments, "--frames", "1", "--out", str(tmp_path / "one.png"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_from_almost_no_noise_a_photograph_comes_back_almost_unchanged(
    tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shown.png"
    arguments = ("reconstruct", str(photos / "00.png"), "--model", str(tiny_model), "--out", str(out), "--json")
    assert main([*arguments, "--steps", "1", "--start", "0"]) == 0
    (near,) = json.loads(capsys.readouterr().out)["psnr"]
    assert main([*arguments, "--steps", "2"]) == 0
    (far,) = json.loads(capsys.readouterr().out)["psnr"]
    assert near > 25 > 15 > far
    with Image.open(out) as grid:
        np.testing.assert_array_equal(np.asarray(grid)[:96, :96], np.asarray(Image.open(photos / "00.png")))


def test_reconstruct_says_what_is_wrong_in_one_line(
    tiny_model: Path, carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (9, 40)).save(tmp_path / "thin.png")
    for video, model, out, expected in (
        (tmp_path / "none.mp4", tiny_model, "a.png", "none.mp4 cannot be used"),
        (tmp_path / "thin.png", tiny_model, "a.png", "9 x 40 pixels are too few"),
        (carphone, tiny_model, "a.gif", "neither a picture nor a video"),
        (carphone, "mega", "a.png", "There is no model 'mega'"),
    ):
        assert main(["reconstruct", str(video), "--model", str(model), "--out", str(tmp_path / out)]) == 2
        assert expected in capsys.readouterr().err.strip().splitlines()[-1]
