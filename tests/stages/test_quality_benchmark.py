"""What the quality benchmark rests on: BRISQUE as its authors' features, a split that stays, and pooled vectors."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks.quality.brisque import brisque_features
from benchmarks.quality.differences import pairs_among, plcc_difference, srcc_difference
from benchmarks.quality.features import PhotographFeatures
from benchmarks.quality.fits import fit_svr
from benchmarks.quality.photographs import DATASET, Photograph, prepare, read_photographs, split_of
from benchmarks.quality.rows import all_rows, chosen_rows
from benchmarks.quality.runner import Workplace, predictions_of
from benchmarks.quality.severity import DISTORTIONS, SEVERITIES, clean_contents
from benchmarks.quality.stand_in import write_stand_in
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._config import resolve_settings
from diffvqa.pipeline._extract import extract
from diffvqa.stages._bootstrap import bootstrap_intervals
from diffvqa.stages._regressor_folder import load_regressors
from diffvqa.stages._texture import LatentTexture

PHOTOGRAPHS = Path(__file__).parents[3] / "shared/data/photos"


def labels_file(folder: Path, names: list[str]) -> Path:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("image_name", "mos"), *((name, number / 100) for number, name in enumerate(names))]
        )
    return folder


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_brisque_is_that_of_scikit_video(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a package that was written for NumPy 1
        from skvideo.measure import brisque as reference

    def resized(luminance: NDArray[np.float32], scale: float, **_: str) -> NDArray[np.float32]:
        height, width = (int(extent * scale) for extent in luminance.shape)
        return np.asarray(Image.fromarray(luminance).resize((width, height), Image.Resampling.BICUBIC))

    picture: NDArray[np.uint8] = getattr(data, name)()
    luminance = np.asarray(Image.fromarray(picture).convert("L"))
    with pytest.MonkeyPatch.context() as patch:
        # SciPy's own, which was Pillow's, is gone.
        patch.setattr(reference.scipy, "misc", SimpleNamespace(imresize=resized), raising=False)
        expected = reference.brisque_features(luminance[None, :, :, None])[0]
    features = brisque_features(picture)
    by_scale = features.reshape(2, 18)
    # The reference says vertical before horizontal.
    reordered = expected.reshape(2, 18)[:, [0, 1, 6, 7, 8, 9, 2, 3, 4, 5, *range(10, 18)]]
    np.testing.assert_allclose(np.sort(by_scale, axis=1), np.sort(reordered, axis=1), rtol=2e-3, atol=2e-3)


def test_the_parts_are_decided_by_the_names_alone(tmp_path: Path) -> None:
    names = [f"ss0{number % 3 + 1}_{number}.jpg" for number in range(100)]
    photographs = read_photographs(labels_file(tmp_path, names))
    assert [sum(each.part == part for each in photographs) for part in ("train", "validation", "test")] == [72, 8, 20]
    assert {each.name for each in photographs} == set(names)
    again = read_photographs(labels_file(tmp_path, names[::-1]))
    assert {each.name: each.part for each in again} == {each.name: each.part for each in photographs}
    fewer = read_photographs(tmp_path, take=50)
    assert [sum(each.part == part for each in fewer) for part in ("train", "validation", "test")] == [36, 4, 10]
    assert {(each.name, each.part) for each in fewer} <= {(each.name, each.part) for each in again}


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the shared photographs are not there")
def test_of_the_shared_photographs_3200_are_learned_from_and_800_tested_on() -> None:
    split = split_of(read_photographs(PHOTOGRAPHS))
    assert (len(split.train) + len(split.validation), len(split.test)) == (3200, 800)


def test_vectors_are_mean_and_deviation_over_the_whole_view(tiny_model: Path, tmp_path: Path) -> None:
    write_stand_in(tmp_path / "photographs", pictures=5)
    photographs = read_photographs(tmp_path / "photographs")
    prepare(photographs, tmp_path / "runs")
    options = {"extract.model": str(tiny_model), "extract.frames": 1, "extract.view_size": 32, "extract.crops": 2}

    def features(grid: int) -> PhotographFeatures:
        place = tmp_path / f"features-{grid}"
        settings = resolve_settings(None, {**options, "extract.grid": grid, "runtime.runs": tmp_path / "runs"})
        extract(DATASET, settings, cache=place)
        return PhotographFeatures([FeatureCache(place)])

    coarse, fine = features(1), features(2)
    names = [each.name for each in photographs]
    (whole,), (of_cells,) = coarse.vectors(names), fine.vectors(names)
    np.testing.assert_allclose(whole, of_cells, rtol=2e-2, atol=2e-3)
    with_std, levels = of_cells.shape[1], fine.caches[0].header.arrays[1].shape
    assert with_std == 2 * PhotographFeatures(fine.caches, with_std=False).vectors(names)[0].shape[1]
    assert fine.vectors(names, views=["crop"])[0].shape[1] * 2 == with_std == 2 * levels[-3]
    coarser = PhotographFeatures(fine.caches, mantissa_bits=7)
    stored, rounded = (source[names[0]]["crop/multiscale"] for source in (fine, coarser))
    expected = torch.from_numpy(stored).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(rounded[np.abs(stored) > 1e-4].astype(np.float32), expected[np.abs(stored) > 1e-4])
    assert coarser.digests != fine.digests
    assert not np.array_equal(coarser.vectors(names)[0], of_cells)
    (texture,), latent = fine.textures(names), fine[names[0]]["crop/latent"]
    crops = LatentTexture.of(torch.from_numpy(latent)).whole.double().mean((0, 1)).numpy()
    np.testing.assert_allclose(texture[0, len(crops) :], crops)
    joined = PhotographFeatures([*fine.caches, *fine.caches])[names[0]]
    assert joined["crop/multiscale"].shape[-3] == 2 * fine[names[0]]["crop/multiscale"].shape[-3]
    assert "crop/latent" in joined


def test_how_much_each_kind_of_features_counts_is_found_by_cross_validation() -> None:
    rng = np.random.default_rng(0)
    parts = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    told, nothing = rng.standard_normal((100, 3)), rng.standard_normal((100, 3))
    photographs = [
        Photograph(str(number), Path("absent"), 0.5 + 0.1 * float(told[number].sum()), part)  # type: ignore[arg-type]
        for number, part in enumerate(parts)
    ]
    kinds = [{each.name: kind[int(each.name)] for each in photographs} for kind in (nothing, told)]
    true = [each.score for each in photographs if each.part == "test"]

    def correlation(chosen: list[dict[str, NDArray[np.float64]]]) -> float:
        return float(np.corrcoef(list(fit_svr(chosen, photographs).values()), true)[0, 1])

    assert correlation(kinds) > 0.8
    assert correlation(kinds) > correlation(kinds[:1]) + 0.5


def test_what_was_made_with_other_settings_is_kept_beside(tmp_path: Path) -> None:
    """Else three crops would be told by what nine of them had learned, as one model of a row lay over the other."""
    write_stand_in(tmp_path / "photographs", pictures=24)
    (row,) = chosen_rows("nano/own", few=10)
    small = {"extract.view_size": 32, "train.tcab_patch": 16, "train.epochs": 1}
    one, two = (
        Workplace(tmp_path / "photographs", tmp_path / "work", {**small, "extract.crops": crops}) for crops in (1, 2)
    )
    made = [predictions_of(row, place) for place in (one, two)]
    crops = [load_regressors(place.trained(row)).extract["recipe"]["crops"] for place in (one, two)]
    assert crops == [1, 2]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work/predictions").iterdir()}
    assert len(kept) == 2
    assert [predictions_of(row, place) for place in (one, two)] == made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work/predictions").iterdir()} == kept


def test_rows_are_chosen_by_name_and_by_pattern() -> None:
    assert len({row.key for row in all_rows(few=10)}) == len(all_rows(few=10))
    assert [row.key for row in chosen_rows("nano", few=10)] == ["nano/svr", "nano/own"]
    assert [row.key for row in chosen_rows("nano/own, brisque/svr", few=10)] == ["brisque/svr", "nano/own"]
    with pytest.raises(ValueError, match="no row is named 'nana'"):
        chosen_rows("nana", few=10)


def test_only_rows_of_one_regressor_are_compared() -> None:
    rows = chosen_rows("random,nano/svr,nano+efficientnet-lite0", few=10)
    assert [(one.key, other.key) for one, other in pairs_among(rows)] == [("nano/svr", "random/svr")]


def test_a_difference_on_the_same_photographs_is_told_from_chance_where_two_intervals_overlap() -> None:
    rng = np.random.default_rng(0)
    true, common = rng.standard_normal(400), rng.standard_normal(400)
    better, worse = true + common, true + 1.1 * common
    for difference in (srcc_difference, plcc_difference):
        found = difference(list(true), list(better), list(worse))
        assert 0 < found.interval.low < found.value < found.interval.high < 0.05
        nothing = difference(list(true), list(better), list(2 * better + 1))
        assert nothing.value == pytest.approx(0, abs=1e-9)
        assert nothing.interval.high - nothing.interval.low < 1e-9
    apart = bootstrap_intervals(true, worse)["srcc"].high - bootstrap_intervals(true, better)["srcc"].low
    assert apart > 0.05


def test_the_contents_to_make_worse_are_the_best_of_the_test_part() -> None:
    def photograph(number: int, source: str, part: str) -> Photograph:
        return Photograph(f"{source}_{number}.jpg", Path("absent"), number / 100, part)  # type: ignore[arg-type]

    tested = [photograph(number, "ss03", "test") for number in range(30)]
    others = [photograph(90, "ss03", "train"), photograph(91, "ss02", "test")]
    assert [each.score for each in clean_contents([*tested, *others])] == [number / 100 for number in range(29, 9, -1)]
    assert len(DISTORTIONS) == len(SEVERITIES) == 5


def test_brisque_of_a_flat_picture_is_finite() -> None:
    flat = np.full((32, 48, 3), 7, np.uint8)
    flat[:, 24:] = 8
    assert np.isfinite(brisque_features(flat)).all()
    assert np.isfinite(brisque_features(np.zeros((32, 32, 3), np.uint8))).all()
