from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diffvqa.stages import _kernel_ridge as kernel_ridge
from diffvqa.stages import _kernel_ridge_fit as kernel_ridge_fit
from diffvqa.stages._kernel_ridge import KernelRidge
from diffvqa.stages._kernel_ridge_fit import LeftOut, fit_kernel_ridge

LENGTHS = (7, 4)  # of the summaries of each kind
SHARES = (1.0, 0.5)
GROUPS = [f"content {number // 3}" for number in range(24)]


def make_summaries(videos: int = 24, seed: int = 0) -> list[list[Tensor]]:
    """Videos of 1 to 3 frames."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1 + n % 3, length, generator=generator) for length in LENGTHS] for n in range(videos)]


def planted(summaries: Sequence[Sequence[Tensor]]) -> list[float]:
    """No linear function of the averages."""
    return [float((video[0][:, 0].mean() + 0.5).abs() + video[1][:, 1].mean()) for video in summaries]


def fit(
    summaries: Sequence[Sequence[Tensor]],
    targets: Sequence[float],
    groups: Sequence[str],
    ridge: KernelRidge | None = None,
) -> tuple[KernelRidge, LeftOut]:
    ridge = KernelRidge(SHARES) if ridge is None else ridge
    generator = torch.Generator().manual_seed(0)
    return ridge, fit_kernel_ridge(ridge, summaries.__getitem__, targets, groups, generator)


def of_videos(ridge: KernelRidge, summaries: Sequence[Sequence[Tensor]]) -> list[float]:
    return [ridge(video).mean().item() for video in summaries]


def test_the_kernel_is_the_weighted_mean_of_radial_kernels_of_standardised_principal_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_ridge, "_MOST_DIRECTIONS", 3)
    summaries = make_summaries()
    ridge, _ = fit(summaries, planted(summaries), GROUPS)
    expected = torch.zeros(3, 24, dtype=torch.float64)
    for kind, (length, share) in enumerate(zip(LENGTHS, SHARES, strict=True)):
        means = torch.stack([video[kind].mean(0) for video in summaries]).numpy()
        scaler = StandardScaler().fit(means)
        components = PCA(3).fit(scaler.transform(means))
        landmarks, asked = (
            components.transform(scaler.transform(rows)) for rows in (means, summaries[2][kind].numpy())
        )
        expected += torch.from_numpy(rbf_kernel(asked, landmarks, gamma=0.5 / length)) * share / sum(SHARES)
    found = ridge.similarities(ridge.project(summaries[2]))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_it_is_ridge_regression_and_what_is_left_out_is_not_fitted_to() -> None:
    summaries = make_summaries()
    targets = planted(summaries)
    ridge, left_out = fit(summaries, targets, GROUPS)
    root = torch.linalg.cholesky(ridge.landmark_similarities() + 1e-6 * torch.eye(24))
    similarities = torch.stack([ridge.similarities(ridge.project(video)).mean(0) for video in summaries]).double()
    features = torch.linalg.solve_triangular(root, similarities.T, upper=False).T.numpy()
    every = Ridge(left_out.penalty).fit(features, targets)
    assert of_videos(ridge, summaries) == pytest.approx(every.predict(features), abs=1e-3)
    for number, group in enumerate(GROUPS):
        others = [row for row, other in enumerate(GROUPS) if other != group]
        of_others = np.array(targets)[others]
        without = Ridge(left_out.penalty).fit(features[others], of_others)
        expected = without.predict(features[[number]])[0] - of_others.mean() + np.mean(targets)
        assert left_out.frames[number].mean().item() == pytest.approx(expected, abs=1e-3)
        moved = left_out.frames[number] - ridge(summaries[number])
        assert moved == pytest.approx(moved.mean().expand_as(moved), abs=1e-5)  # its frames all by the same


def test_what_is_no_linear_function_of_few_videos_is_predicted() -> None:
    summaries, others = make_summaries(200), make_summaries(100, seed=1)
    ridge, left_out = fit(summaries, planted(summaries), [str(number) for number in range(200)])
    assert pearsonr(of_videos(ridge, others), planted(others)).statistic > 0.75
    assert pearsonr([frames.mean() for frames in left_out.frames], planted(summaries)).statistic > 0.75


def test_scores_that_have_nothing_to_do_with_the_features_are_not_predicted() -> None:
    summaries = make_summaries(60)
    scores = torch.randn(60, generator=torch.Generator().manual_seed(4)).tolist()
    ridge, left_out = fit(summaries, scores, [str(number) for number in range(60)])
    assert left_out.penalty >= 10.0
    assert torch.tensor(of_videos(ridge, summaries)).std() < 0.2
    # Nor does what is left out tell them, upside down.
    assert torch.stack([frames.mean() for frames in left_out.frames]).std() < 0.2


def test_one_content_and_repeated_or_constant_features_are_borne() -> None:
    summaries = make_summaries()
    ridge, left_out = fit(summaries, planted(summaries), ["one"] * 24)
    assert of_videos(ridge, summaries) == [0.0] * 24
    assert not torch.cat(left_out.frames).any()
    same = [[of_kind[:1].clone() for of_kind in summaries[0]]] * 24
    ridge, left_out = fit(same, planted(summaries), GROUPS)
    assert torch.isfinite(torch.cat(left_out.frames)).all()
    assert max(of_videos(ridge, same)) == pytest.approx(min(of_videos(ridge, same)))
    fit(summaries[:2], [1.0, -1.0], ["one", "other"])


def test_more_videos_than_landmarks_are_all_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ridge_fit, "_MOST_LANDMARKS", 50)
    summaries, others = make_summaries(200), make_summaries(100, seed=1)
    ridge, left_out = fit(summaries, planted(summaries), [str(number) for number in range(200)])
    assert len(ridge.weights) == 50
    assert len(left_out.frames) == 200
    few, _ = fit(summaries[:50], planted(summaries[:50]), [str(number) for number in range(50)])
    by_few, by_all = (pearsonr(of_videos(each, others), planted(others)).statistic for each in (few, ridge))
    assert by_all > by_few + 0.05


def test_fine_tuning_changes_what_was_learned_by_what_it_leaves_over() -> None:
    summaries, others = make_summaries(200), make_summaries(100, seed=1)
    ridge, _ = fit(summaries, planted(summaries), [str(number) for number in range(200)])
    tuned, _ = fit(others, planted(others), [str(number) for number in range(100)], copy.deepcopy(ridge))
    assert torch.equal(tuned.landmark_similarities(), ridge.landmark_similarities())
    unseen = make_summaries(100, seed=2)
    alone, _ = fit(others, planted(others), [str(number) for number in range(100)])
    by_both, by_former, by_own = (
        pearsonr(of_videos(each, unseen), planted(unseen)).statistic for each in (tuned, ridge, alone)
    )
    assert by_both > max(by_former, by_own)
    unchanged, _ = fit(others, of_videos(ridge, others), [str(number) for number in range(100)], copy.deepcopy(ridge))
    assert of_videos(unchanged, unseen) == pytest.approx(of_videos(ridge, unseen), abs=1e-4)


def test_it_is_loaded_whatever_it_was_fitted_to() -> None:
    summaries = make_summaries()
    ridge, _ = fit(summaries, planted(summaries), GROUPS)
    again = KernelRidge(SHARES)
    again.load_state_dict(ridge.state_dict())
    assert torch.equal(again(summaries[2]), ridge(summaries[2]))
    assert not list(again.parameters())  # nothing that an optimiser could change
