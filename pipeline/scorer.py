"""Scores of new videos from a trained model: the same features, the regressors of all splits, their mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffvqa.cache.fingerprint import Fingerprint
from diffvqa.pipeline.backbone import choose_device, load_backbone
from diffvqa.pipeline.config import Runtime
from diffvqa.pipeline.errors import ConfigError
from diffvqa.pipeline.manifest import Label
from diffvqa.pipeline.runs import trained_models
from diffvqa.stages.decode_pool import DecodePool
from diffvqa.stages.decoding import FailedVideo, VideoSource
from diffvqa.stages.extract_recipe import ExtractRecipe
from diffvqa.stages.extraction import extract_units
from diffvqa.stages.prediction import predict
from diffvqa.stages.regressor_folder import MODEL_FILE, load_regressors

_ONE_SEED_FOR_ALL = ""  # a score depends on the pixels alone: a copy under another name scores the same


@dataclass(frozen=True)
class ScoredVideo:
    """The score of one video, or why there is none.

    Attributes:
        path: The file.
        score: On the label's scale; None for a video that failed.
        score_std: Standard deviation over the regressors of the splits; None for a video that failed.
        reason: Empty, or the kind of failure.
        detail: Empty, or the decoder's own words.
    """

    path: Path
    score: float | None
    score_std: float | None
    reason: str = ""
    detail: str = ""


class Scorer:
    """A trained model, ready to score.

    Args:
        model: Folder of a trained regressor.
        runtime: Device and workers.
        scale: Data set on whose label scale to score, for a model of several; the first when None.

    Raises:
        RegressorFolderError: The folder holds no trained regressor, or the model has no such scale.
        ModelFolderError: The diffusion model it was trained with is not there.
        FingerprintMismatchError: That diffusion model is another one now.
    """

    def __init__(self, model: Path, runtime: Runtime, *, scale: str | None = None) -> None:
        device = choose_device(runtime.device)
        self._runtime = runtime
        loaded = load_regressors(model)
        self._regressors = loaded.calibrated(scale)
        for each in self._regressors:
            each.regressor.to(device)
        label = loaded.labels[scale or next(iter(loaded.labels))]
        self.label = Label(label["name"], label["note"])
        self.recipe = ExtractRecipe.model_validate(loaded.extract["recipe"])
        self.train_recipe = loaded.recipe
        self._backbone = load_backbone(self.recipe, runtime)
        trained_on = Fingerprint(loaded.extract["fingerprint"])
        ways_out = "Put back the diffusion model it was trained with, or train again on features of this one."
        self._backbone.fingerprint.require_equal(trained_on, str(model), ways_out)

    def score(self, paths: Iterable[Path]) -> Iterator[ScoredVideo]:
        """Yield the score or the failure of each video, in the order given."""
        sources = (VideoSource(str(path), path, seed_key=_ONE_SEED_FOR_ALL) for path in paths)
        runtime = self._runtime
        with DecodePool(
            self.recipe, workers=runtime.workers, timeout=runtime.decode_timeout, memory=runtime.decode_memory
        ) as pool:
            units = ([source] for source in sources)  # so that a score depends on no other video, to the last bit
            for result in extract_units(units, self._backbone.extractor, pool, self.recipe):
                if isinstance(result, FailedVideo):
                    yield ScoredVideo(result.source.path, None, None, result.reason, result.detail)
                else:
                    predicted = predict(self._regressors, result.arrays)
                    yield ScoredVideo(result.decoded.source.path, predicted.score, predicted.score_std)


def locate_trained_model(name_or_path: str | None, root: Path) -> Path:
    """Return the folder of a trained model.

    Args:
        name_or_path: A data set's name, a model folder, or None for the only one there is.
        root: The folder of all runs.

    Raises:
        ConfigError: There is none, or several and none was named.
    """
    there = trained_models(root)
    names = ", ".join(run.name for run in there)
    if name_or_path is None:
        if len(there) == 1:
            return there[0].model
        if there:
            raise ConfigError(f"There are several trained models in {root}.", f"Choose one with --model: {names}.")
        raise ConfigError(f"There is no trained model in {root}.", "Run 'diffvqa train' first, or give --model FOLDER.")
    for run in there:
        if run.name == name_or_path:
            return run.model
    for folder in (Path(name_or_path), Path(name_or_path) / "model"):
        if (folder / MODEL_FILE).is_file():
            return folder
    known = f"Trained are: {names}." if names else "Run 'diffvqa train' first."
    raise ConfigError(f"There is no trained model '{name_or_path}'.", known)
