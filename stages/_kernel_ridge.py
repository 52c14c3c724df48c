"""The kernel part of the regressor: ridge regression on statistics of each frame's features, in closed form.

A network needs thousands of videos before it does better than a kernel machine on statistics of its inputs. So that is
left to one (Saunders et al., 1998, "Ridge regression learning algorithm in dual variables"), with training videos as
landmarks (Nystroem's method: Williams & Seeger, 2001), and the network learns what it leaves over. A video is the mean
of its frames in feature space, so that each frame has a quality of its own (Szabo et al., 2016, "Learning theory for
distribution regression").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Of the squared distance of two vectors over their length: two that have nothing to do with each other are 2 apart.
_BANDWIDTH = 0.5
_MOST_DIRECTIONS = 128
_SMALLEST_STD = 1e-6
_SMALLEST_VARIANCE = 1e-9


class _Kernel(nn.Module):
    """k(x, z) = exp(-b |P x - P z|^2), z the landmarks.

    P standardises, keeps the principal components and divides by the square root of how many numbers vary at all.
    """

    mean: Tensor
    directions: Tensor
    landmarks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("directions", torch.zeros(1, 0))
        self.register_buffer("landmarks", torch.zeros(0, 0))

    def set(self, landmarks: Tensor) -> None:
        """Take over landmarks (M, D) and their principal components."""
        std = landmarks.std(0, correction=0)
        varies = std >= _SMALLEST_STD
        std = torch.where(varies, std, torch.ones_like(std))
        self.mean = landmarks.mean(0)
        standardised = ((landmarks - self.mean) / std).double()
        # By way of the M x M products: a summary often has more numbers than there are videos.
        variances, left = torch.linalg.eigh(standardised @ standardised.T)
        kept = variances[-_MOST_DIRECTIONS:].clamp_min(_SMALLEST_VARIANCE)
        directions = standardised.T @ (left[:, -_MOST_DIRECTIONS:] / kept.sqrt())
        self.directions = (directions / std[:, None] / varies.sum().clamp_min(1).sqrt()).float()
        self.landmarks = self.project(landmarks)

    def project(self, summaries: Tensor) -> Tensor:
        """Return P x, (..., R), of (..., D)."""
        return (summaries - self.mean) @ self.directions

    def forward(self, projected: Tensor) -> Tensor:
        """Return k(x, z), (..., M), of P x."""
        landmarks = self.landmarks.to(projected.dtype)
        distances = torch.cdist(projected, landmarks, compute_mode="use_mm_for_euclid_dist").square()
        return torch.exp(-_BANDWIDTH * distances)


class KernelRidge(nn.Module):
    """What kernel ridge regression says of each frame: 0 until it is fitted. Nothing in it is learned by gradients.

    Args:
        shares: For each kind of summaries how much it counts: the kernel is the mean of a radial kernel of each,
            weighted so.
    """

    weights: Tensor
    intercept: Tensor

    def __init__(self, shares: Sequence[float]) -> None:
        super().__init__()
        self._shares = [share / sum(shares) for share in shares]
        self.kernels = nn.ModuleList(_Kernel() for _ in shares)
        self.register_buffer("weights", torch.zeros(0))
        self.register_buffer("intercept", torch.zeros(()))

    @property
    def has_landmarks(self) -> bool:
        """Whether landmarks were set."""
        return len(self.weights) > 0

    def set_landmarks(self, landmarks: Sequence[Tensor]) -> None:
        """Compare with these from now on, (M, D) of each kind."""
        for kernel, of_kind in zip(self._kernels(), landmarks, strict=True):
            kernel.set(of_kind)
        self.weights = torch.zeros(len(landmarks[0]))

    def project(self, summaries: Sequence[Tensor]) -> list[Tensor]:
        """Return all that is looked at of summaries (..., D) of each kind: (..., R) float32 of each kind."""
        return [kernel.project(of_kind) for kernel, of_kind in zip(self._kernels(), summaries, strict=True)]

    def similarities(self, projected: Sequence[Tensor]) -> Tensor:
        """Return the kernel with each landmark, (..., M)."""
        every = zip(self._shares, self.kernels, projected, strict=True)
        return torch.stack([share * kernel(of_kind) for share, kernel, of_kind in every]).sum(0)

    def landmark_similarities(self) -> Tensor:
        """Return the kernel of the landmarks with each other, (M, M) float64."""
        return self.similarities([kernel.landmarks.double() for kernel in self._kernels()])

    def of_projected(self, projected: Sequence[Tensor]) -> Tensor:
        """Return what :meth:`forward` returns, of what :meth:`project` does."""
        predicted: Tensor = self.similarities(projected) @ self.weights + self.intercept
        return predicted

    def forward(self, summaries: Sequence[Tensor]) -> Tensor:
        """Return the quality of each frame, (...,) float32 in standard deviations of the scores.

        Args:
            summaries: (..., D) float32 of each kind.
        """
        if not self.has_landmarks:
            return summaries[0].new_zeros(summaries[0].shape[:-1])
        return self.of_projected(self.project(summaries))

    def _kernels(self) -> list[_Kernel]:
        return [kernel for kernel in self.kernels if isinstance(kernel, _Kernel)]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Take over the sizes too, which depend on how many videos it was fitted to."""
        for name, buffer in self.named_buffers():
            if prefix + name in state_dict:
                buffer.resize_(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
