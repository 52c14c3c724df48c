"""Making rows: features from caches in the work folder, predictions kept beside them, nothing done twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffvqa.cache._atomic import atomic_write_text
from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._config import Settings, resolve_settings
from diffvqa.stages._diffusion.controller import Controller
from diffvqa.stages._diffusion.folder_files import locate_model_folder
from diffvqa.stages._diffusion.model_folder import load_model_folder
from diffvqa.stages._regressor_folder import REGRESSOR_FORMAT

from .brisque import brisque_features
from .features import PhotographFeatures, VectorFeatures, extracted, seconds_per_photograph
from .fits import fit_own, fit_svr
from .photographs import Photograph, prepare, read_photographs
from .rows import WITHOUT_CONTROLLER, Row

_FRAMES = 1


@dataclass(frozen=True)
class Workplace:
    """Where photographs come from, and where everything made of them is kept.

    Attributes:
        photographs: Folder with ``images/`` and ``labels.csv``.
        work: Folder of caches, models and predictions.
        options: Settings that go for every row, dotted key to value.
    """

    photographs: Path
    work: Path
    options: Mapping[str, Any]

    def settings(self, row: Row) -> Settings:
        """Return the settings of a row, apart from its backbone."""
        chosen = {
            "extract.frames": _FRAMES,
            "runtime.runs": self.work / "runs" / (str(row.take) if row.take else "all"),
            **{f"extract.{key}": value for key, value in row.extract.items()},
            **{f"train.{key}": value for key, value in row.train.items()},
        }
        return resolve_settings(None, {**chosen, **self.options})

    def of_row(self, row: Row) -> tuple[Photograph, ...]:
        """Return the photographs of a row, prepared as a data set."""
        photographs = read_photographs(self.photographs, take=row.take)
        prepare(photographs, self.settings(row).runtime.runs)
        return photographs

    def features(self, row: Row) -> PhotographFeatures:
        """Return the features of a row, extracted where they are not there yet."""
        caches = [self._cache(row, name) for name in row.backbones]
        return PhotographFeatures(caches, with_std=row.with_std, mantissa_bits=row.mantissa_bits)

    def kept_as(self, row: Row, features: PhotographFeatures, photographs: Sequence[Photograph]) -> str:
        """Return the name of what is made of a row: another one for other features, photographs or settings."""
        settings = self.settings(row)
        identity = {
            "features": [features.digests, row.is_brisque],
            "photographs": [[each.name, each.score, each.part] for each in photographs],
            "train": [REGRESSOR_FORMAT, settings.train.model_dump()] if row.regressor == "own" else None,
            "views": row.views,
            "texture": row.with_texture,
        }
        name = row.name if row.take is None else f"{row.name}, {row.take} photographs"
        return f"{name}-{row.regressor}-{_digest(identity)[:16]}"

    def trained(self, row: Row) -> Path:
        """Return the folder of the regressor that a row trained."""
        photographs = self.of_row(row)
        return self.model_folder(self.kept_as(row, self.features(row), photographs))

    def model_folder(self, kept_as: str) -> Path:
        """Return where a regressor of that name lies."""
        return self.work / "models" / kept_as

    def seconds_per_photograph(self, row: Row) -> float:
        """Return the CPU seconds that a row's networks took for each photograph; NaN where unknown."""
        return sum(seconds_per_photograph(self._cache_folder(row, name)) for name in row.backbones)

    def _cache(self, row: Row, backbone: str) -> FeatureCache:
        settings = self.settings(row)
        model = str(self._without_controller()) if backbone == WITHOUT_CONTROLLER else backbone
        recipe = settings.extract.model_copy(update={"model": model})
        return extracted(settings.model_copy(update={"extract": recipe}), self._cache_folder(row, backbone))

    def _cache_folder(self, row: Row, backbone: str) -> Path:
        recipe = self.settings(row).extract.model_dump(exclude={"model"})
        return self.work / "features" / f"{backbone}-{_digest(recipe)[:8]}"

    def _without_controller(self) -> Path:
        folder = self.work / "models" / WITHOUT_CONTROLLER
        nano = load_model_folder(locate_model_folder("nano"))
        silent = Controller.from_unet(nano.unet, conditioning_channels=nano.autoencoder.latent_channels)
        dataclasses.replace(nano, controller=silent).save(folder)
        return folder


def predictions_of(row: Row, place: Workplace) -> dict[str, float]:
    """Return a row's predictions for the test part; made anew only where features, photographs or settings changed."""
    photographs = place.of_row(row)
    features = place.features(row)
    name = place.kept_as(row, features, photographs)
    kept = place.work / "predictions" / f"{name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    predicted = _predict(row, features, photographs, place, save_to=place.model_folder(name))
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(kept, json.dumps(predicted))
    return predicted


def _predict(
    row: Row, features: PhotographFeatures, photographs: Sequence[Photograph], place: Workplace, *, save_to: Path
) -> dict[str, float]:
    if row.is_brisque:
        vectors = _brisque_vectors(photographs, place.work)
        if row.regressor == "svr":
            return fit_svr([vectors], photographs)
        return fit_own(VectorFeatures(vectors, features), photographs, place.settings(row))
    if row.regressor == "own":
        return fit_own(features, photographs, place.settings(row), networks=features.networks, save_to=save_to)
    names = [each.name for each in photographs]
    kinds = features.vectors(names, views=row.views)
    if row.with_texture:
        kinds += features.textures(names, views=row.views)
    return fit_svr([dict(zip(names, kind, strict=True)) for kind in kinds], photographs)


def _brisque_vectors(photographs: Sequence[Photograph], work: Path) -> dict[str, NDArray[np.float64]]:
    kept = work / "brisque.json"
    vectors: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for each in photographs:
        if each.name not in vectors:
            with Image.open(each.path) as opened:
                vectors[each.name] = brisque_features(np.asarray(opened.convert("RGB"))).tolist()
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(kept, json.dumps(vectors))
    return {name: np.array(vector) for name, vector in vectors.items()}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
