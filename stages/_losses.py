"""The losses of the regressor: linear correlation and pairwise order, both blind to the label scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CONSTANT_ULPS = 8


def plcc_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return (1 - PLCC) / 2, Pearson's linear correlation turned into a loss.

    Args:
        predicted: (B,) float, predicted scores on any scale.
        target: (B,) float, the MOS on any scale.

    Returns:
        () float in [0, 1]. Where a correlation is undefined (fewer than two videos, or either side constant) it is 0
        and so is its gradient.
    """
    if _is_constant(predicted) or _is_constant(target):
        return _zero(predicted)
    correlation = F.cosine_similarity(predicted - predicted.mean(), target - target.mean(), dim=0, eps=0.0)
    return (1 - correlation) / 2


def rank_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return how far the pairs that are in the wrong order are apart, in standard deviations of the predictions.

    The mean over the pairs i < j of relu(-(p_i - p_j) sign(y_i - y_j)) / std(p). The pairwise term is the one of the
    published code of FAST-VQA (Wu et al., ECCV 2022), which has no margin; there it is divided by one plus the largest
    term, here by the spread of the predictions, so that shrinking the predictions does not lower the loss.

    Args:
        predicted: (B,) float, predicted scores on any scale.
        target: (B,) float, the MOS on any scale; pairs of equal MOS cost nothing.

    Returns:
        () float, at least 0; 0 exactly where no pair is in the wrong order, and for fewer than two videos or constant
        predictions, then with zero gradient.
    """
    if _is_constant(predicted):
        return _zero(predicted)
    first, second = torch.triu_indices(len(predicted), len(predicted), offset=1, device=predicted.device)
    wrong_order = F.relu(-(predicted[first] - predicted[second]) * torch.sign(target[first] - target[second]))
    return wrong_order.mean() / predicted.std(correction=0)


def quality_loss(predicted: Tensor, target: Tensor, plcc_weight: float, rank_weight: float) -> Tensor:
    """Return plcc_weight * :func:`plcc_loss` + rank_weight * :func:`rank_loss`, () float.

    Args:
        predicted: (B,) float, predicted scores on any scale.
        target: (B,) float, the MOS on any scale.
        plcc_weight: At least 0.
        rank_weight: At least 0.
    """
    return plcc_weight * plcc_loss(predicted, target) + rank_weight * rank_loss(predicted, target)


def _is_constant(values: Tensor) -> bool:
    """Whether the values differ by no more than rounding, so that dividing by their spread would amplify noise."""
    if len(values) < 2:
        return True
    with torch.no_grad():
        rounding = _CONSTANT_ULPS * torch.finfo(values.dtype).eps * values.abs().max()
        return bool(values.max() - values.min() <= rounding)


def _zero(predicted: Tensor) -> Tensor:
    """Return 0, still attached to the graph: its gradient is 0."""
    return (predicted * 0).sum()
