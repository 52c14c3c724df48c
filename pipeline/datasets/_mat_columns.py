"""A program: print the vectors of a MATLAB file as JSON, so that a damaged file can harm no other process.

The libraries that read such files trust what they find in them: a damaged one may crash them, or make them ask for all
the memory there is. ``label_table`` runs this module in a process of its own, under a time limit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BYTES = 4 * 2**30
_LONGEST_VECTOR = 1_000_000
_DEEPEST = 4
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_USER_BLOCK = 512

Columns = dict[str, list[str]]


def columns_of(path: Path) -> Columns:
    """Return the vectors of a MATLAB file of version 5 or 7.3, their entries as text.

    Fields of a structure are named ``structure.field``. What is neither a vector of numbers nor one of texts is left
    out.

    Raises:
        Exception: Whatever the libraries make of a damaged file.
    """
    with path.open("rb") as file:
        start = file.read(_HDF5_USER_BLOCK + len(_HDF5_SIGNATURE))
    is_hdf5 = start.startswith(_HDF5_SIGNATURE) or start.endswith(_HDF5_SIGNATURE)
    return dict(_hdf5_columns(path) if is_hdf5 else _version_5_columns(path))


def main(paths: list[str]) -> None:
    """Print one line of JSON for each file: its columns, or what went wrong."""
    _limit_memory()
    for path in paths:
        try:
            result: dict[str, Any] = {"columns": columns_of(Path(path))}
        except Exception as error:  # noqa: BLE001  # a damaged file makes the libraries raise anything
            result = {"error": str(error).strip() or type(error).__name__}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()  # the next file may end this process


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _MOST_BYTES if hard == resource.RLIM_INFINITY else min(_MOST_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _version_5_columns(path: Path) -> Iterator[tuple[str, list[str]]]:
    from scipy.io import loadmat

    for name, value in loadmat(path, squeeze_me=True, appendmat=False).items():
        if not name.startswith("__"):
            yield from _named_vectors(name, value, _DEEPEST)


def _named_vectors(name: str, value: Any, depth: int) -> Iterator[tuple[str, list[str]]]:
    array = np.asarray(value)
    if array.dtype.names and array.size == 1 and depth:
        for field in array.dtype.names:
            yield from _named_vectors(f"{name}.{field}", array.reshape(-1)[0][field], depth - 1)
        return
    if array.dtype == object and array.size == 1 and depth:
        yield from _named_vectors(name, array.reshape(-1)[0], depth - 1)
        return
    entries = _entries(array)
    if entries is not None:
        yield name, entries


def _entries(array: NDArray[Any]) -> list[str] | None:
    if array.size > _LONGEST_VECTOR or array.size != max(array.shape, default=1):
        return None
    flat = array.reshape(-1)
    if array.dtype.kind in "iuf":
        return [repr(number) for number in flat.tolist()]
    if array.dtype.kind == "U":
        return [str(text) for text in flat]
    if array.dtype == object:
        texts = [_text(entry) for entry in flat]
        return None if None in texts else [text for text in texts if text is not None]
    return None


def _text(entry: Any) -> str | None:
    array = np.asarray(entry)
    if array.size == 0:
        return ""
    if array.size != 1:
        return None
    return str(array.reshape(-1)[0]) if array.dtype.kind in "Uiuf" else None


def _hdf5_columns(path: Path) -> Iterator[tuple[str, list[str]]]:
    import h5py

    with h5py.File(path, "r") as file:
        yield from _group_columns(file, file, "", _DEEPEST)


def _group_columns(file: Any, group: Any, prefix: str, depth: int) -> Iterator[tuple[str, list[str]]]:
    import h5py

    for name, item in group.items():
        if name.startswith("#"):  # MATLAB's own: what references point at
            continue
        if isinstance(item, h5py.Dataset):
            entries = _dataset_entries(file, item)
            if entries is not None:
                yield f"{prefix}{name}", entries
        elif depth:
            yield from _group_columns(file, item, f"{prefix}{name}.", depth - 1)


def _dataset_entries(file: Any, dataset: Any) -> list[str] | None:
    import h5py

    if dataset.size is None or dataset.size > _LONGEST_VECTOR or dataset.size != max(dataset.shape, default=1):
        return None
    if _is_text(dataset):
        return [_decode(dataset)]
    if dataset.dtype == h5py.ref_dtype:
        targets = [file[reference] for reference in dataset[()].reshape(-1)]
        if all(_is_text(target) for target in targets):
            return [_decode(target) for target in targets]
        numbers = [_entries(np.asarray(target[()])) for target in targets]
        return [entries[0] for entries in numbers if entries] if all(n and len(n) == 1 for n in numbers) else None
    return _entries(np.asarray(dataset[()]))


def _is_text(dataset: Any) -> bool:
    return dataset.attrs.get("MATLAB_class") in (b"char", "char")


def _decode(dataset: Any) -> str:
    if "MATLAB_empty" in dataset.attrs:
        return ""
    if dataset.size > _LONGEST_VECTOR:
        raise ValueError("a text is longer than a name can be")
    # Texts are stored as UTF-16 code units.
    return np.asarray(dataset[()], dtype="<u2").T.tobytes().decode("utf-16-le")


if __name__ == "__main__":
    main(sys.argv[1:])
