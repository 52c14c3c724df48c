"""What is computed: frames, views, diffusion features, the regressor, its training and its metrics.

What is listed here may be imported, and is loaded when it is asked for; everything else is private.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.stages._bootstrap import Interval, bootstrap_intervals
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._mamba import BidirectionalMamba
    from diffvqa.stages._metrics import Metrics, correlation_metrics, median_metrics
    from diffvqa.stages._prediction import VideoScore, predict
    from diffvqa.stages._regressor_folder import LoadedRegressors, load_regressors
    from diffvqa.stages._scan.selective_scan import ScanChoice, ScanPath, choose_scan
    from diffvqa.stages._train_recipe import TrainRecipe

__all__ = [
    "BidirectionalMamba",
    "ExtractRecipe",
    "Interval",
    "LoadedRegressors",
    "Metrics",
    "ScanChoice",
    "ScanPath",
    "TrainRecipe",
    "VideoScore",
    "bootstrap_intervals",
    "choose_scan",
    "correlation_metrics",
    "load_regressors",
    "median_metrics",
    "predict",
]

_MODULES = {
    "BidirectionalMamba": "_mamba",
    "ExtractRecipe": "_extract_recipe",
    "Interval": "_bootstrap",
    "LoadedRegressors": "_regressor_folder",
    "Metrics": "_metrics",
    "ScanChoice": "_scan.selective_scan",
    "ScanPath": "_scan.selective_scan",
    "TrainRecipe": "_train_recipe",
    "VideoScore": "_prediction",
    "bootstrap_intervals": "_bootstrap",
    "choose_scan": "_scan.selective_scan",
    "correlation_metrics": "_metrics",
    "load_regressors": "_regressor_folder",
    "median_metrics": "_metrics",
    "predict": "_prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
