from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffvqa.stages.errors import TrainingDataError
from diffvqa.stages.pretraining import PretrainSchedule, build_nano, pretrain
from diffvqa.stages.seeding import derive_seed

SCHEDULE = PretrainSchedule(unet_steps=12, controller_steps=6, batch_size=4, crop_size=32, learning_rate=2e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:96, :96]
    for index in range(2):
        picture = np.stack([rows * 2, columns * 2, np.full_like(rows, 90 * index)], axis=-1)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def test_training_lowers_the_loss_and_repeats_exactly(photos: list[Path]) -> None:
    def losses() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        pretrain(build_nano(3, widths=(16, 16, 16)), photos, SCHEDULE, lambda name, _, loss: seen.append((name, loss)))
        return seen

    first = losses()
    assert [name for name, _ in first] == ["unet"] * 12 + ["controller"] * 6
    unet = [loss for name, loss in first if name == "unet"]
    assert np.mean(unet[-3:]) < np.mean(unet[:3])
    assert first == losses()


def test_only_the_controller_learns_in_the_second_half(photos: list[Path]) -> None:
    after_unet: dict[str, torch.Tensor] = {}
    model = build_nano(3, widths=(16, 16, 16))

    def keep(name: str, step: int, _: float) -> None:
        if name == "controller" and step == 0:
            after_unet.update({key: value.clone() for key, value in model.unet.state_dict().items()})

    adapted = pretrain(model, photos, SCHEDULE, keep)
    for key, value in adapted.unet.state_dict().items():
        assert torch.equal(value, after_unet[key]), key
    assert adapted.controller.controlnet_mid_block.weight.abs().max() > 0


def test_photographs_too_small_to_crop_are_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (20, 400)).save(tmp_path / "thin.png")
    with pytest.raises(TrainingDataError, match="at least 32 pixels"):
        pretrain(build_nano(0, widths=(16, 16, 16)), [tmp_path / "thin.png"], SCHEDULE, lambda *_: None)


def test_seeds_differ_with_every_part_and_never_change() -> None:
    assert derive_seed(0, "a", "b") == 8335848131581575750
    assert len({derive_seed(0, "ab", "c"), derive_seed(0, "a", "bc"), derive_seed(1, "ab", "c"), derive_seed(0)}) == 4
