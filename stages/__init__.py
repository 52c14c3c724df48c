"""What is computed: frames, views, diffusion features, the regressor, its training and its metrics.

What scripts of one's own need is here by name, and imported when it is asked for; everything else in this package may
change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.stages.bootstrap import Interval, bootstrap_intervals
    from diffvqa.stages.extract_recipe import ExtractRecipe
    from diffvqa.stages.metrics import Metrics, correlation_metrics, median_metrics
    from diffvqa.stages.prediction import VideoScore, predict
    from diffvqa.stages.regressor_folder import LoadedRegressors, load_regressors
    from diffvqa.stages.train_recipe import TrainRecipe

__all__ = [
    "ExtractRecipe",
    "Interval",
    "LoadedRegressors",
    "Metrics",
    "TrainRecipe",
    "VideoScore",
    "bootstrap_intervals",
    "correlation_metrics",
    "load_regressors",
    "median_metrics",
    "predict",
]

_MODULES = {
    "ExtractRecipe": "extract_recipe",
    "Interval": "bootstrap",
    "LoadedRegressors": "regressor_folder",
    "Metrics": "metrics",
    "TrainRecipe": "train_recipe",
    "VideoScore": "prediction",
    "bootstrap_intervals": "bootstrap",
    "correlation_metrics": "metrics",
    "load_regressors": "regressor_folder",
    "median_metrics": "metrics",
    "predict": "prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
