from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeClip
from extraction_material import CPU, DecodedAlready, SimpleBackbone, decoded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffvqa.stages._backbones.interface import ViewFeatures
from diffvqa.stages._backbones.placement import Placement
from diffvqa.stages._backbones.registry import load_backbone
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._extraction import array_specs, extract_units, extraction_fingerprint
from diffvqa.stages._failures import FailureReason
from diffvqa.stages._view_batches import ExtractedVideo
from diffvqa.stages._view_extractor import ViewExtractor

RECIPE = ExtractRecipe(frames=2, view_size=32, crops=2, grid=4)
PLAIN = ExtractRecipe(frames=3, view_size=16, crops=2, grid=1)


def extracted(
    units: Sequence[Sequence[DecodedVideo | FailedVideo]], extractor: ViewExtractor, recipe: ExtractRecipe
) -> list[ExtractedVideo | FailedVideo]:
    pool = DecodedAlready(video for unit in units for video in unit)
    return list(extract_units(([video.source for video in unit] for unit in units), extractor, pool, recipe))


def usable(results: Sequence[ExtractedVideo | FailedVideo]) -> dict[str, ExtractedVideo]:
    return {result.decoded.source.video_id: result for result in results if not isinstance(result, FailedVideo)}


@given(
    lengths=st.lists(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=5), max_size=4),
    batch_size=st.integers(1, 12),
    latent=st.booleans(),
)
def test_every_video_gets_its_own_features_back_in_order(
    lengths: list[list[int]], batch_size: int, latent: bool
) -> None:
    """Videos of 0 frames are failures; batches are full but for the last of each unit."""
    units = [
        [
            decoded(f"{u}-{v}", PLAIN, frames)
            if frames
            else FailedVideo(VideoSource(f"{u}-{v}", Path("x")), FailureReason.EMPTY, "")
            for v, frames in enumerate(unit)
        ]
        for u, unit in enumerate(lengths)
    ]
    backbone = SimpleBackbone(latent=latent)
    results = extracted(units, ViewExtractor(backbone, device=CPU, batch_size=batch_size), PLAIN)
    videos = [video for unit in units for video in unit]
    assert [(result if isinstance(result, FailedVideo) else result.decoded).source.video_id for result in results] == [
        video.source.video_id for video in videos
    ]
    for video, result in zip(videos, results, strict=True):
        if isinstance(video, FailedVideo):
            assert result is video
            continue
        assert isinstance(result, ExtractedVideo)
        alone = extracted([[video]], ViewExtractor(SimpleBackbone(latent=latent), device=CPU, batch_size=1), PLAIN)
        assert isinstance(alone[0], ExtractedVideo)
        assert result.arrays.keys() == alone[0].arrays.keys()
        for name, array in result.arrays.items():
            np.testing.assert_array_equal(array, alone[0].arrays[name])
        colours = result.arrays["crop/multiscale"][..., :3, 0, 0]
        np.testing.assert_allclose(colours, video.crop.mean((2, 3)), rtol=1e-3)
        assert result.arrays["resize/frames"] is video.resize
    views = [sum(frames * (1 + PLAIN.crops) for frames in unit) for unit in lengths]
    full = [[batch_size] * (count // batch_size) + [count % batch_size] * (count % batch_size > 0) for count in views]
    assert backbone.batches == [size for unit in full for size in unit]


def test_photographs_share_full_batches() -> None:
    photographs = [decoded(f"photo {number}", PLAIN, frames=1) for number in range(8)]
    backbone = SimpleBackbone()
    extracted([photographs], ViewExtractor(backbone, device=CPU, batch_size=12), PLAIN)
    assert backbone.batches == [12, 12]


def test_composition_size_and_order_of_batches_change_nothing_beyond_rounding(tiny_model: Path) -> None:
    recipe = RECIPE.model_copy(update={"model": str(tiny_model), "start_timestep": 999, "steps": 2})
    videos = [decoded(f"video {number}", recipe, frames=1 + number % 2) for number in range(4)]
    backbone = load_backbone(recipe, Placement(CPU))
    arrangements = [([videos], 5), ([videos[::-1]], 64), ([[video] for video in videos], 64), ([videos[2:]], 1)]
    first, *others = (
        usable(extracted(units, ViewExtractor(backbone, device=CPU, batch_size=size), recipe))
        for units, size in arrangements
    )
    for other in others:
        for video_id, video in other.items():
            for name, array in video.arrays.items():
                expected = first[video_id].arrays[name]
                np.testing.assert_allclose(array, expected, rtol=2e-3, atol=2e-3, err_msg=name)


def test_the_noise_of_a_view_belongs_to_its_video_frame_and_place(tiny_model: Path) -> None:
    recipe = RECIPE.model_copy(update={"model": str(tiny_model), "start_timestep": 500})
    video = decoded("a", recipe)
    video.resize[1] = video.resize[0]
    video.crop[:] = video.resize[:, None]
    extractor = ViewExtractor(load_backbone(recipe, Placement(CPU)), device=CPU)
    (result,) = extracted([[video]], extractor, recipe)
    assert isinstance(result, ExtractedVideo)
    latents = [*result.arrays["resize/latent"], *result.arrays["crop/latent"].reshape(-1, 48, 8, 8)]
    distinct = {latent.tobytes() for latent in latents}
    assert len(distinct) == len(latents)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_clip_gives_what_the_specification_says(
    tiny_model: Path, make_clip: MakeClip, tmp_path: Path, workers: int
) -> None:
    recipe = RECIPE.model_copy(update={"model": str(tiny_model)})
    clip = make_clip("short.mp4", "-frames:v", "20", "-crf", "20")
    one_frame = make_clip("one.mp4", "-frames:v", "1")
    sources = [VideoSource("clip", clip), VideoSource("gone", tmp_path / "gone.mp4"), VideoSource("one", one_frame)]
    ready = ViewExtractor(load_backbone(recipe, Placement(CPU)), device=CPU)
    with DecodePool(recipe, workers=workers, timeout=60.0) as pool:
        first, second, third = extract_units([sources], ready, pool, recipe)
    assert isinstance(second, FailedVideo)
    assert not isinstance(first, FailedVideo)
    assert not isinstance(third, FailedVideo)
    specs = {spec.name: spec for spec in array_specs(recipe, ready.backbone)}
    assert set(specs) == {
        f"{view}/{part}" for view in ("resize", "crop") for part in ("latent", "multiscale", "frames")
    }
    for video, frames in ((first, 2), (third, 1)):
        for name, spec in specs.items():
            assert video.arrays[name].shape == (frames, *spec.shape[1:]), name
            assert video.arrays[name].dtype == spec.dtype, name
    last_level, ends = list(specs["crop/multiscale"].levels.items())[-1]
    assert (last_level, ends[1] - ends[0]) == ("residual/std", 48)
    assert ends[1] == specs["crop/multiscale"].shape[2]
    views = first.decoded.crop.reshape(-1, 32, 32, 3)
    latent = first.arrays["crop/latent"].reshape(-1, 48, 8, 8)
    pixels = load_model_folder(tiny_model).autoencoder.decode(torch.from_numpy(latent.astype(np.float32)))
    restored = ((pixels.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    assert np.abs(restored - views).mean() < 8  # at t = 0 a latent is its view, slightly noised: rows are not mixed up


def test_overflowing_features_are_a_failure_and_not_infinities() -> None:
    class Overflowing(SimpleBackbone):
        def extract(self, views: Tensor, seeds: Sequence[int]) -> ViewFeatures:
            features = super().extract(views, seeds)
            return ViewFeatures(features.latent, features.multiscale * torch.where(views[0, 0, 0, 0] == 7, 1e6, 1.0))

    videos = [decoded(name, PLAIN) for name in "abc"]
    videos[1].resize[0] = 7
    extractor = ViewExtractor(Overflowing(), device=CPU, batch_size=9)
    first, second, third = extracted([videos], extractor, PLAIN)
    assert isinstance(second, FailedVideo)
    assert second.reason == FailureReason.NOT_FINITE
    assert isinstance(first, ExtractedVideo)
    assert isinstance(third, ExtractedVideo)


def test_a_backbone_without_a_latent_stores_none() -> None:
    backbone = SimpleBackbone(latent=False)
    (result,) = extracted([[decoded("v", PLAIN)]], ViewExtractor(backbone, device=CPU), PLAIN)
    assert isinstance(result, ExtractedVideo)
    specs = {spec.name: spec for spec in array_specs(PLAIN, backbone)}
    names = {"resize/multiscale", "resize/frames", "crop/multiscale", "crop/frames"}
    assert set(result.arrays) == set(specs) == names
    assert specs["crop/multiscale"].levels == {"colour": (0, 3), "seed": (3, 4)}
    assert specs["crop/multiscale"].attributes()["levels"] == {"colour": [0, 3], "seed": [3, 4]}


def test_no_more_is_decoded_than_the_batches_have_use_for() -> None:
    """What waits for its batch is bounded: a video is asked for when the one before it went into batches."""
    asked: list[str] = []

    class Counting(DecodedAlready):
        def run(self, sources: object) -> Iterator[DecodedVideo | FailedVideo]:
            for video in super().run(sources):  # type: ignore[arg-type]  # passed through
                asked.append(video.source.video_id)
                yield video

    videos = [decoded(f"{number}", PLAIN) for number in range(20)]
    views = 3 * (1 + PLAIN.crops)
    extractor = ViewExtractor(SimpleBackbone(), device=CPU, batch_size=2 * views)
    results = extract_units([[video.source for video in videos]], extractor, Counting(videos), PLAIN)
    for given_back, _ in enumerate(results):
        assert len(asked) <= given_back + 2


def test_the_fingerprint_holds_weights_and_recipe_but_not_the_models_name() -> None:
    weights = {"diffusion": "abc"}
    one = extraction_fingerprint(RECIPE, weights)
    assert one.fields["model.diffusion"] == "abc"
    elsewhere = RECIPE.model_copy(update={"model": "/elsewhere/nano"})
    assert one.digest == extraction_fingerprint(elsewhere, weights).digest
    for other in ({"diffusion": "abd"}, {"diffusion-random": "abc"}, {"1.diffusion": "abc", "2.cnn": "012"}):
        assert one.digest != extraction_fingerprint(RECIPE, other).digest
    changed = {"frames": 9, "view_size": 64, "crops": 7, "grid": 2, "steps": 3, "seed": 1, "up_blocks": "1",
               "precision": "bfloat16", "multiscale_std": False, "middle_block": False, "residual": False,
               "start_timestep": 9}  # fmt: skip
    for setting, value in changed.items():
        assert one.digest != extraction_fingerprint(RECIPE.model_copy(update={setting: value}), weights).digest, setting
