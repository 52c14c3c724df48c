"""Miniature data sets made in code: folders of empty files, and label files in the formats people have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from diffvqa.pipeline.datasets import PreparedDataset, PrepareRequest, find_recipe

KONVID = {"3339962845": 4.64, "8171831850": 4.444029851, "8536919744": 1.22}


def touch(directory: Path, *names: str) -> Path:
    """Make a folder with empty files and return it."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return directory


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_fast_vqa(path: Path, scores: Mapping[str, float]) -> Path:
    """Write ``path, duration, framerate, mos`` without a header, -1 for what is unknown."""
    return write(path, "".join(f"{name}, -1, -1, {score}\n" for name, score in scores.items()))


def write_mat_5(path: Path, **variables: Any) -> Path:
    """Write a MATLAB file of version 5; a list of texts becomes a cell array, a dict a structure."""
    savemat(path, {name: _as_matlab(value) for name, value in variables.items()})
    return path


def _as_matlab(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_matlab(inner) for name, inner in value.items()}
    if value and isinstance(value[0], str):
        cells: NDArray[Any] = np.empty((len(value), 1), dtype=object)
        cells[:, 0] = value
        return cells
    return np.array(value, dtype=float).reshape(-1, 1)


def write_mat_73(path: Path, numbers: Mapping[str, Sequence[float]], texts: Mapping[str, Sequence[str]]) -> Path:
    """Write a MATLAB file of version 7.3 as MATLAB does: HDF5 behind a block of 512 bytes, texts behind references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in numbers.items():
            file[name] = np.array([values], dtype=float)
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
        for name, entries in texts.items():
            references = np.empty((1, len(entries)), dtype=h5py.ref_dtype)
            for index, text in enumerate(entries):
                units = np.frombuffer(text.encode("utf-16-le"), dtype="<u2").reshape(-1, 1)
                target = file.create_dataset(f"#refs#/{name}{index}", data=units)
                target.attrs["MATLAB_class"] = np.bytes_("char")
                references[0, index] = target.ref
            file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
            file[name].attrs["MATLAB_class"] = np.bytes_("cell")
    with path.open("r+b") as stored:
        stored.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
    return path


def prepare(recipe: str, videos: Path, labels: Path | None = None) -> PreparedDataset:
    return find_recipe(recipe).prepare(PrepareRequest(recipe, videos / "nowhere", videos, labels), lambda _: None)


def scores(prepared: PreparedDataset) -> dict[str, float | None]:
    return {row.video_id: row.score for row in prepared.manifest.rows}


def splits(prepared: PreparedDataset) -> dict[str, str]:
    return {row.video_id: row.split for row in prepared.manifest.rows}


def groups(prepared: PreparedDataset) -> dict[str, str]:
    return {row.video_id: row.group for row in prepared.manifest.rows}
