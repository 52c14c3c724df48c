"""What the figures were measured on, in words that tell machines apart but name none."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from .figures import Machine

_SOFTWARE = ("diffvqa", "torch", "diffusers", "zarr", "numba", "numpy")


def describe_machine() -> Machine:
    """Describe this machine; no network's name, user or path is in it."""
    import torch

    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        software={name: version(name) for name in _SOFTWARE},
    )


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
