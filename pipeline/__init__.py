"""What a user runs: data sets, settings, the ``diffvqa`` command, and a module for each of its verbs.

A verb's function has the verb's name, as in ``from diffvqa.pipeline import extract``: it does the same from Python and
returns a summary. What is listed here may be imported, and is loaded when it is asked for; everything else is private.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffvqa.pipeline._adapt import AdaptSummary, adapt
    from diffvqa.pipeline._align import AlignSummary, align
    from diffvqa.pipeline._config import Runtime, Settings, resolve_settings
    from diffvqa.pipeline._errors import ConfigError, DatasetError
    from diffvqa.pipeline._evaluate import Evaluation, PredictedVideo, evaluate
    from diffvqa.pipeline._export import ExportSummary, export
    from diffvqa.pipeline._extract import ExtractSummary, extract
    from diffvqa.pipeline._import_controller import import_controller
    from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, read_manifest, write_manifest
    from diffvqa.pipeline._plan import ExtractionPlan, plan
    from diffvqa.pipeline._prepare import PrepareSummary, prepare
    from diffvqa.pipeline._pretrain import PretrainSummary, pretrain
    from diffvqa.pipeline._reconstruct import ReconstructionReport, reconstruct
    from diffvqa.pipeline._report.verb import ReportSummary, report
    from diffvqa.pipeline._score import ScoreSummary, score
    from diffvqa.pipeline._scored_video import FrameQuality, ScoredVideo
    from diffvqa.pipeline._scorer import Scorer
    from diffvqa.pipeline._sweep import SweepSummary, sweep
    from diffvqa.pipeline._train import TrainSummary, train

__all__ = [
    "AdaptSummary",
    "AlignSummary",
    "ConfigError",
    "DatasetError",
    "Evaluation",
    "ExportSummary",
    "ExtractSummary",
    "ExtractionPlan",
    "FrameQuality",
    "Label",
    "Manifest",
    "ManifestRow",
    "PredictedVideo",
    "PrepareSummary",
    "PretrainSummary",
    "ReconstructionReport",
    "ReportSummary",
    "Runtime",
    "ScoreSummary",
    "ScoredVideo",
    "Scorer",
    "Settings",
    "SweepSummary",
    "TrainSummary",
    "adapt",
    "align",
    "evaluate",
    "export",
    "extract",
    "import_controller",
    "plan",
    "prepare",
    "pretrain",
    "read_manifest",
    "reconstruct",
    "report",
    "resolve_settings",
    "score",
    "sweep",
    "train",
    "write_manifest",
]

_MODULES = {
    "AdaptSummary": "_adapt",
    "AlignSummary": "_align",
    "ConfigError": "_errors",
    "DatasetError": "_errors",
    "Evaluation": "_evaluate",
    "ExportSummary": "_export",
    "ExtractSummary": "_extract",
    "ExtractionPlan": "_plan",
    "FrameQuality": "_scored_video",
    "Label": "_manifest",
    "Manifest": "_manifest",
    "ManifestRow": "_manifest",
    "PredictedVideo": "_evaluate",
    "PrepareSummary": "_prepare",
    "PretrainSummary": "_pretrain",
    "ReconstructionReport": "_reconstruct",
    "ReportSummary": "_report.verb",
    "Runtime": "_config",
    "ScoreSummary": "_score",
    "ScoredVideo": "_scored_video",
    "Scorer": "_scorer",
    "Settings": "_config",
    "SweepSummary": "_sweep",
    "TrainSummary": "_train",
    "adapt": "_adapt",
    "align": "_align",
    "evaluate": "_evaluate",
    "export": "_export",
    "extract": "_extract",
    "import_controller": "_import_controller",
    "plan": "_plan",
    "prepare": "_prepare",
    "pretrain": "_pretrain",
    "read_manifest": "_manifest",
    "reconstruct": "_reconstruct",
    "report": "_report.verb",
    "resolve_settings": "_config",
    "score": "_score",
    "sweep": "_sweep",
    "train": "_train",
    "write_manifest": "_manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
