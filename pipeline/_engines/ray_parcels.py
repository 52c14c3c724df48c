"""What a Ray worker needs and may not find on its machine: this software's own code, and the weights of a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.cache._scratch import scratch_folder

if TYPE_CHECKING:
    from ray import ObjectRef

_CHUNK = 64 * 2**20
_PACKAGES = ("cache", "pipeline", "stages")


def copy_code(folder: Path) -> Path:
    """Copy this software, as it is installed here, into ``folder``; return the package that Ray is to send around."""
    import diffvqa.cache
    import diffvqa.pipeline
    import diffvqa.stages

    package = folder / "diffvqa"
    for name, module in zip(_PACKAGES, (diffvqa.cache, diffvqa.pipeline, diffvqa.stages), strict=True):
        (source,) = module.__path__
        shutil.copytree(source, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    return package


@dataclass(frozen=True)
class Parcel:
    """The files of a folder in Ray's object store, which brings them to each machine that asks for them once.

    Attributes:
        files: Path in the folder -> its content in pieces.
    """

    files: Mapping[str, tuple[ObjectRef[bytes], ...]]

    @classmethod
    def of(cls, folder: Path) -> Parcel:
        """Put a folder's files into the object store; they stay there as long as the parcel is held."""
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return cls({path.relative_to(folder).as_posix(): tuple(_pieces(path)) for path in files})

    def unpack(self, folder: Path) -> None:
        """Write the files into ``folder``, holding one piece at a time."""
        import ray

        for name, pieces in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for piece in pieces:
                    file.write(ray.get(piece))


@contextmanager
def unpacked(parcels: Mapping[str, Parcel], purpose: str) -> Iterator[dict[str, Path]]:
    """Give the folders of parcels, by their names, in this machine's scratch space for the length of the block.

    Args:
        parcels: By name.
        purpose: Of the scratch folder.
    """
    if not parcels:
        yield {}
        return
    with scratch_folder(purpose) as folder:
        places = {name: folder / str(number) / Path(name).name for number, name in enumerate(parcels)}
        for name, parcel in parcels.items():
            places[name].mkdir(parents=True)
            parcel.unpack(places[name])
        yield places


def _pieces(path: Path) -> Iterator[ObjectRef[bytes]]:
    import ray

    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield ray.put(piece)
