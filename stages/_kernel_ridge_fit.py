"""Fitting the kernel part of the regressor to videos, and what it says of each when its content is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffvqa.stages._kernel_ridge import KernelRidge

_MOST_LANDMARKS = 2048
# The largest first: of equals it is chosen, and says next to nothing.
_PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(6, -7, -1))
_JITTER = 1e-6
_FRAMES_AT_ONCE = 1024


@dataclass(frozen=True)
class LeftOut:
    """What the regression says of the videos that it was fitted to, for the network to learn what is left over.

    Attributes:
        frames: For each video (F,) float32, of its frames: moved so that their mean is what is said of the video by a
            regression that was fitted to no video of its group, but for the mean score, which is that of all.
        penalty: The one that predicts best in this way.
    """

    frames: tuple[Tensor, ...]
    penalty: float


@torch.no_grad()
def fit_kernel_ridge(
    ridge: KernelRidge,
    summaries_of: Callable[[int], Sequence[Tensor]],
    targets: Sequence[float],
    groups: Sequence[str],
    generator: torch.Generator,
) -> LeftOut:
    """Fit the regression to N videos; its penalty is chosen by leaving out one group after the other.

    A regression that has landmarks keeps them, and is changed by what it leaves over: fine-tuning.

    Args:
        ridge: Is changed.
        summaries_of: Gives the summaries of a video by its number, (F, D) float32 of each kind; asked twice at most.
        targets: The scores, standardised.
        groups: What content each shows; where there is but one, nothing can be left out and nothing is fitted.
        generator: Draws the landmarks where there are more videos than are kept.
    """
    numbers = range(len(targets))
    if not ridge.has_landmarks:
        chosen = torch.randperm(len(targets), generator=generator)[:_MOST_LANDMARKS].sort().values
        means = [[of_kind.mean(0) for of_kind in summaries_of(number)] for number in chosen.tolist()]
        ridge.set_landmarks([torch.stack(of_kind) for of_kind in zip(*means, strict=True)])
    every = [ridge.project(summaries_of(number)) for number in numbers]
    lengths = [len(video[0]) for video in every]
    projected = [torch.cat(of_kind) for of_kind in zip(*every, strict=True)]
    former = _of_frames(ridge, projected)
    if len(set(groups)) < 2:
        return LeftOut(torch.split(former, lengths), _PENALTIES[0])

    # Phi: similarities in the coordinates in which the landmarks' kernel is the identity.
    kernel = ridge.landmark_similarities()
    root = torch.linalg.cholesky(kernel + _JITTER * torch.eye(len(kernel), dtype=kernel.dtype))
    similarities = _similarities_of_videos(ridge, projected, lengths)
    features = torch.linalg.solve_triangular(root, similarities.T, upper=False).T
    scores = torch.tensor(targets, dtype=torch.float64) - _means(former, lengths)
    regression = _Ridge(features, scores, groups)
    left_out = {penalty: regression.left_out(penalty) for penalty in _PENALTIES}
    penalty = min(_PENALTIES, key=lambda each: float((left_out[each] - scores).square().mean()))

    weights = regression.weights(penalty)
    ridge.weights = ridge.weights + torch.linalg.solve_triangular(root.T, weights[:, None], upper=True)[:, 0].float()
    ridge.intercept = ridge.intercept + (scores.mean() - features.mean(0) @ weights).float()
    # The mean of the others is the lower, the higher a video's score: a network would read the score off it.
    said = left_out[penalty] - regression.means_without_group() + scores.mean()
    frames = _of_frames(ridge, projected)
    moves = _means(former, lengths) + said - _means(frames, lengths)
    moved = frames + moves.float().repeat_interleave(torch.tensor(lengths))
    return LeftOut(torch.split(moved, lengths), penalty)


def _of_frames(ridge: KernelRidge, projected: Sequence[Tensor]) -> Tensor:
    """Return what the regression says of each frame, (frames of all videos,) float32."""
    pieces = (torch.split(of_kind, _FRAMES_AT_ONCE) for of_kind in projected)
    return torch.cat([ridge.of_projected(piece) for piece in zip(*pieces, strict=True)])


def _similarities_of_videos(ridge: KernelRidge, projected: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """Return the mean over the frames of each video of their similarities, (N, M) float64."""
    sums = torch.zeros(len(lengths), len(ridge.weights), dtype=torch.float64)
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    pieces = (torch.split(of_kind, _FRAMES_AT_ONCE) for of_kind in (*projected, owners))
    for *piece, videos in zip(*pieces, strict=True):
        sums.index_add_(0, videos, ridge.similarities([of_kind.double() for of_kind in piece]))
    return sums / torch.tensor(lengths)[:, None]


def _means(of_frames: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the mean over the frames of each video, (N,) float64."""
    return torch.stack([video.double().mean() for video in torch.split(of_frames, list(lengths))])


class _Ridge:
    """Ridge regression with an intercept, for any penalty.

    Args:
        features: (N, M) float64.
        scores: (N,) float64.
        groups: Of each row.
    """

    def __init__(self, features: Tensor, scores: Tensor, groups: Sequence[str]) -> None:
        centred = features - features.mean(0)
        self._variances, self._basis = torch.linalg.eigh(centred.T @ centred)
        self._rotated = centred @ self._basis
        self._mean = scores.mean()
        self._scores = scores
        members: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            members.setdefault(group, []).append(number)
        of_size: dict[int, list[list[int]]] = {}
        for numbers in members.values():
            of_size.setdefault(len(numbers), []).append(numbers)
        # The rows of each group, (groups, size) for each size: those of one size are computed together.
        self._groups = [torch.tensor(those) for those in of_size.values()]

    def weights(self, penalty: float) -> Tensor:
        """Return the weights of the features, (M,)."""
        weights: Tensor = self._basis @ self._rotated_weights(penalty)
        return weights

    def left_out(self, penalty: float) -> Tensor:
        """Return for each row what a fit without its group says, (N,); exact, from the one fit to all.

        With H the matrix that makes the fitted values of the scores, what is off by then is (I - H_GG)^-1 times what is
        off now (Cook & Weisberg, 1982, "Residuals and influence in regression").
        """
        off = self._scores - self._mean - self._rotated @ self._rotated_weights(penalty)
        scaled = self._rotated / (self._variances.clamp_min(0) + penalty).sqrt()
        predicted = torch.empty_like(off)
        for rows in self._groups:
            influence = scaled[rows] @ scaled[rows].mT + 1 / len(off)
            off_then = torch.linalg.solve(torch.eye(rows.shape[1], dtype=off.dtype) - influence, off[rows])
            predicted[rows] = self._scores[rows] - off_then
        return predicted

    def means_without_group(self) -> Tensor:
        """Return for each row the mean score of the rows of other groups, (N,)."""
        means = torch.empty_like(self._scores)
        for rows in self._groups:
            of_group = self._scores[rows].sum(1, keepdim=True)
            means[rows] = (self._scores.sum() - of_group) / (len(means) - rows.shape[1])
        return means

    def _rotated_weights(self, penalty: float) -> Tensor:
        products: Tensor = self._rotated.T @ (self._scores - self._mean)
        shares: Tensor = self._variances.clamp_min(0) + penalty
        return products / shares
