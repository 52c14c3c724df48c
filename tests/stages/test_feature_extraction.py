from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeClip

from diffvqa.stages.decode_pool import DecodePool
from diffvqa.stages.decoding import FailedVideo, VideoSource, decode_video
from diffvqa.stages.diffusion.autoencoder import to_model_range
from diffvqa.stages.diffusion.model_folder import load_model_folder
from diffvqa.stages.extract_recipe import ExtractRecipe
from diffvqa.stages.extraction import array_specs, extract_decoded, extract_videos, extraction_fingerprint
from diffvqa.stages.failures import FailureReason
from diffvqa.stages.feature_extractor import DiffusionFeatureExtractor

RECIPE = ExtractRecipe(frames=2, view_size=32, crops=2, grid=4)
CPU = torch.device("cpu")


def extractor(folder: Path, recipe: ExtractRecipe = RECIPE, *, batch_size: int = 16) -> DiffusionFeatureExtractor:
    return DiffusionFeatureExtractor(load_model_folder(folder), recipe, device=CPU, batch_size=batch_size)


def some_views(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


@torch.inference_mode()
def test_one_step_features_are_the_networks_own(tiny_model: Path) -> None:
    """Recompute by hand what one call at t gives: the up-blocks' maps, and z_0 from the predicted noise."""
    recipe = RECIPE.model_copy(update={"start_timestep": 30})
    model = load_model_folder(tiny_model)
    views = some_views(3)
    features = extractor(tiny_model, recipe)(views, seeds=[5, 6, 7])
    z_0 = model.autoencoder.encode(to_model_range(torch.from_numpy(views).permute(0, 3, 1, 2)))
    noise = torch.stack([torch.randn(48, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 7)])
    kept = model.scheduler.alphas_cumprod[30]
    z_t = kept.sqrt() * z_0 + (1 - kept).sqrt() * noise
    maps: list[torch.Tensor] = []
    for block in model.unet.up_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    predicted = model.predict_noise(z_t, torch.tensor([30, 30, 30]), z_0)
    reconstructed = (z_t - (1 - kept).sqrt() * predicted) / kept.sqrt()
    np.testing.assert_allclose(features.latent, reconstructed.numpy(), rtol=2e-3, atol=2e-3)
    split = [level.reshape(*level.shape[:2], 4, level.shape[2] // 4, 4, level.shape[3] // 4) for level in maps]
    cells = [level.transpose(3, 4).flatten(4) for level in split]
    expected = torch.cat([*(cell.mean(4) for cell in cells), *(cell.std(4, correction=0) for cell in cells)], dim=1)
    np.testing.assert_allclose(features.multiscale, expected.numpy(), rtol=2e-3, atol=2e-3)
    means = extractor(tiny_model, recipe.model_copy(update={"multiscale_std": False}))(views, seeds=[5, 6, 7])
    np.testing.assert_array_equal(means.multiscale, features.multiscale[:, : len(means.multiscale[0])])
    assert features.latent.dtype == features.multiscale.dtype == np.float16


def test_batch_size_and_neighbours_change_nothing_beyond_rounding(tiny_model: Path) -> None:
    recipe = RECIPE.model_copy(update={"start_timestep": 999, "steps": 4})
    views, seeds = some_views(5), [11, 12, 13, 14, 15]
    together = extractor(tiny_model, recipe)(views, seeds)
    one_by_one = extractor(tiny_model, recipe, batch_size=1)(views, seeds)
    backwards = extractor(tiny_model, recipe, batch_size=2)(views[::-1].copy(), seeds[::-1])
    for other in (one_by_one.latent, backwards.latent[::-1]):
        np.testing.assert_allclose(together.latent, other, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(together.multiscale, one_by_one.multiscale, rtol=2e-3, atol=2e-3)
    other_noise = extractor(tiny_model, recipe)(views, [seed + 100 for seed in seeds])
    assert np.abs(together.latent - other_noise.latent).max() > 0.1


def test_a_real_clip_gives_what_the_specification_says(tiny_model: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("short.mp4", "-frames:v", "20", "-crf", "20")
    one_frame = make_clip("one.mp4", "-frames:v", "1")
    sources = [VideoSource("clip", clip), VideoSource("gone", tmp_path / "gone.mp4"), VideoSource("one", one_frame)]
    ready = extractor(tiny_model)
    with DecodePool(RECIPE, workers=1, timeout=60.0) as pool:
        first, second, third = extract_videos(sources, ready, pool, RECIPE)
    assert isinstance(second, FailedVideo)
    assert not isinstance(first, FailedVideo)
    assert not isinstance(third, FailedVideo)
    specs = {spec.name: spec for spec in array_specs(RECIPE, ready)}
    assert set(specs) == {
        f"{view}/{part}" for view in ("resize", "crop") for part in ("latent", "multiscale", "frames")
    }
    for video, frames in ((first, 2), (third, 1)):
        for name, spec in specs.items():
            assert video.arrays[name].shape == (frames, *spec.shape[1:]), name
            assert video.arrays[name].dtype == spec.dtype, name
    views = first.decoded.crop.reshape(-1, 32, 32, 3)
    latent = first.arrays["crop/latent"].reshape(-1, 48, 8, 8)
    pixels = load_model_folder(tiny_model).autoencoder.decode(torch.from_numpy(latent.astype(np.float32)))
    restored = ((pixels.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    assert np.abs(restored - views).mean() < 8  # at t = 0 a latent is its view, slightly noised: rows are not mixed up


def test_overflowing_features_are_a_failure_and_not_infinities(
    tiny_model: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip("short.mp4", "-frames:v", "20", "-crf", "20")
    ready = extractor(tiny_model)
    real = ready.__class__.__call__

    def overflowing(self: DiffusionFeatureExtractor, *arguments: object) -> object:
        features = real(self, *arguments)  # type: ignore[arg-type]  # passed through
        features.latent[0] = np.inf
        return features

    monkeypatch.setattr(DiffusionFeatureExtractor, "__call__", overflowing)
    result = extract_decoded(decode_video(VideoSource("v", clip), RECIPE), ready, RECIPE)
    assert isinstance(result, FailedVideo)
    assert result.reason == FailureReason.NOT_FINITE


def test_the_fingerprint_holds_weights_and_recipe_but_not_the_models_name() -> None:
    one = extraction_fingerprint(RECIPE, "abc")
    assert one.digest == extraction_fingerprint(RECIPE.model_copy(update={"model": "/elsewhere/nano"}), "abc").digest
    assert one.digest != extraction_fingerprint(RECIPE, "abd").digest
    for field, value in {"frames": 9, "view_size": 64, "crops": 7, "grid": 2, "steps": 3, "seed": 1}.items():
        assert one.digest != extraction_fingerprint(RECIPE.model_copy(update={field: value}), "abc").digest, field
