"""The parts of the run: a module for each, which measures in a process of its own."""

from __future__ import annotations

import importlib

from .figures import PartResult
from .options import Options

TITLES = {
    "official": "Extraction against the official workflow",
    "extraction_limit": "Extraction against its own limit",
    "raw_storage": "The cache against raw storage",
    "stage_two": "Stage two against its own limit",
    "start_up": "Start-up",
    "one_video": "Scoring one video",
    "growth": "How cost grows",
}


def measure(name: str, options: Options) -> PartResult:
    """Measure one part, in this process."""
    result: PartResult = importlib.import_module(f"{__package__}.part_{name}").measure(options)
    return result
