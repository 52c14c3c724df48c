from __future__ import annotations

import numpy as np
import pytest
from training_material import synthetic_picture

from diffvqa.stages._denoiser_training.degradations import DEGRADATIONS, degrade_at_random
from diffvqa.stages._picture_metrics import peak_signal_to_noise_ratio

PICTURE = synthetic_picture(3, side=97)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_severer_a_degradation_the_farther_from_the_picture(name: str) -> None:
    def degraded(severity: float) -> np.ndarray:
        return DEGRADATIONS[name](PICTURE, severity, np.random.default_rng(5))

    spoilt = [degraded(severity) for severity in (0.0, 0.3, 0.65, 1.0)]
    assert all(picture.shape == PICTURE.shape and picture.dtype == np.uint8 for picture in spoilt)
    psnr = [peak_signal_to_noise_ratio(picture, PICTURE) for picture in spoilt]
    assert psnr == sorted(psnr, reverse=True)
    assert psnr[0] > 30
    assert psnr[-1] < psnr[0] - 5
    np.testing.assert_array_equal(degraded(0.65), spoilt[2])


def test_what_is_degraded_at_random_is_the_same_for_the_same_seed_and_uses_every_kind() -> None:
    names = tuple(DEGRADATIONS)
    made = [degrade_at_random(PICTURE, names, 1.0, np.random.default_rng(seed)) for seed in range(12)]
    again = degrade_at_random(PICTURE, names, 1.0, np.random.default_rng(4))
    np.testing.assert_array_equal(again, made[4])
    assert len({picture.tobytes() for picture in made}) == 12
