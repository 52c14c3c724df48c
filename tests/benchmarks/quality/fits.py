"""The two regressors: stage two's own, on the maps, and a support vector machine on vectors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffvqa.pipeline._config import Settings
from diffvqa.pipeline._stage_two import training_setup
from diffvqa.stages._network_maps import NetworkMaps
from diffvqa.stages._regressor_folder import save_regressors
from diffvqa.stages._training import train_all
from diffvqa.stages._training_data import FeatureSource

from .features import PhotographFeatures
from .photographs import DATASET, Photograph, samples_of, split_of

Vectors = Mapping[str, NDArray[np.float64]]
"""One vector per photograph, by name."""

_PENALTIES = (0.1, 0.3, 1.0, 3.0)
_FOLDS = 4
_STEPS = 5
_TOLERANCE = 0.05  # errors up to this, on the scale of 0 to 1, cost nothing


def fit_own(
    features: FeatureSource,
    photographs: Sequence[Photograph],
    settings: Settings,
    *,
    networks: Sequence[NetworkMaps] = (),
    save_to: Path | None = None,
) -> dict[str, float]:
    """Train stage two's regressor as ``diffvqa train`` does, and return its predictions for the test part.

    Args:
        features: Of the photographs.
        photographs: With their scores and parts.
        settings: The recipe of the training, and where it runs.
        networks: What of the maps each network has; one has all when empty.
        save_to: Where to keep the trained model, to score others with; for features of one cache.
    """
    result = train_all(
        features,
        samples_of(photographs),
        [split_of(photographs)],
        settings.train,
        training_setup(settings.runtime),
        networks=networks,
    )
    if save_to is not None:
        assert isinstance(features, PhotographFeatures)
        header = features.caches[0].header
        extract = {
            "recipe": header.recipe,
            "fingerprint": header.fingerprint,
            "fingerprint_digest": header.fingerprint_digest,
        }
        labels = {DATASET: {"name": "MOS", "note": ""}}
        save_regressors(save_to, result, train_recipe=settings.train, extract=extract, labels=labels)
    return dict(result.splits[0].test_predicted)


def fit_svr(kinds: Sequence[Vectors], photographs: Sequence[Photograph]) -> dict[str, float]:
    """Fit a support vector machine on standardised vectors, and return its predictions for the test part.

    It learns from training and validation part; its penalty, and how much each kind of features counts in the kernel,
    are chosen by cross-validation among these.

    Args:
        kinds: Kinds of features, each one vector per photograph with a radial kernel of its own.
        photographs: With their scores and parts.
    """
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    learned = [each for each in photographs if each.part != "test"]
    tested = [each for each in photographs if each.part == "test"]

    def kernels(vectors: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scaler = StandardScaler()
        known = scaler.fit_transform(np.stack([vectors[each.name] for each in learned]))
        unknown = scaler.transform(np.stack([vectors[each.name] for each in tested]))
        return rbf_kernel(known), rbf_kernel(unknown, known)

    def searched(shares: Sequence[float]) -> GridSearchCV:
        # The kernel is computed once for all folds and penalties: with thousands of features it is what takes the time.
        search = GridSearchCV(
            SVR(kernel="precomputed", epsilon=_TOLERANCE),
            {"C": _PENALTIES},
            cv=_FOLDS,
            scoring="neg_mean_squared_error",
        )
        return search.fit(np.tensordot(shares, among_known, axes=1), [each.score for each in learned])

    among_known, to_known = (np.stack(each) for each in zip(*map(kernels, kinds), strict=True))
    found = {shares: searched(shares) for shares in _divisions(len(kinds))}
    best = max(found, key=lambda shares: float(found[shares].best_score_))
    predicted = found[best].predict(np.tensordot(best, to_known, axes=1))
    return {each.name: float(value) for each, value in zip(tested, predicted, strict=True)}


def _divisions(kinds: int) -> list[tuple[float, ...]]:
    """Return the shares that several kinds may have in a whole, in steps."""
    steps = (each for each in itertools.product(range(_STEPS + 1), repeat=kinds) if sum(each) == _STEPS)
    return [tuple(step / _STEPS for step in each) for each in steps] if kinds > 1 else [(1.0,)]
