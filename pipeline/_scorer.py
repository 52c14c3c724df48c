"""Scores of new videos from a trained model: the same features, the regressors of all splits, their mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._source_files import file_location
from diffvqa.pipeline._backbone import choose_device, load_backbone
from diffvqa.pipeline._config import Runtime
from diffvqa.pipeline._manifest import Label
from diffvqa.pipeline._runs import locate_trained_model
from diffvqa.pipeline._scored_video import FrameQuality, ScoredVideo
from diffvqa.stages._decode_pool import DecodePool
from diffvqa.stages._decoding import FailedVideo, VideoSource
from diffvqa.stages._extract_recipe import ExtractRecipe
from diffvqa.stages._extraction import extract_units
from diffvqa.stages._prediction import predict
from diffvqa.stages._regressor_folder import hash_regressors, load_regressors
from diffvqa.stages._view_batches import ExtractedVideo

_ONE_SEED_FOR_ALL = ""  # a score depends on the pixels alone: a copy under another name scores the same


class Scorer:
    """A trained model, ready to score: ``Scorer("demo")("clip.mp4").score``.

    The networks are loaded once; decoding processes start with the first video and stay until :meth:`close`, the end
    of a ``with`` block or the end of the program.

    Args:
        model: Name of a data set with a trained model, or the model's folder; None for the only one there is.
        runtime: Where the runs lie, device and workers; the defaults when None.
        scale: Data set on whose label scale to score, for a model of several; the first when None.

    Attributes:
        folder: Of the trained model.
        label: What the scores are.
        recipe: Of the features, the trained model's own.
        train_recipe: Of the regressors.
        fingerprint: Of the features.
        digest: SHA-256 (hex) of the trained model.

    Raises:
        ConfigError: There is no such model, or several and none was named; or the device is not there.
        RegressorFolderError: The folder is damaged, or the model has no such scale.
        ModelFolderError: The diffusion model it was trained with is not there.
        FingerprintMismatchError: That diffusion model is another one now.
    """

    def __init__(
        self, model: Path | str | None = None, runtime: Runtime | None = None, *, scale: str | None = None
    ) -> None:
        self._runtime = runtime = runtime or Runtime()
        self.folder = locate_trained_model(None if model is None else str(model), runtime.runs)
        device = choose_device(runtime.device)
        loaded = load_regressors(self.folder)
        self._regressors = loaded.calibrated(scale)
        for each in self._regressors:
            each.regressor.to(device)
        label = loaded.labels[scale or next(iter(loaded.labels))]
        self.label = Label(label["name"], label["note"])
        self.recipe = ExtractRecipe.model_validate(loaded.extract["recipe"])
        self.train_recipe = loaded.recipe
        self.digest = hash_regressors(self.folder)
        self.backbone = load_backbone(self.recipe, runtime)
        self.fingerprint = self.backbone.fingerprint
        trained_on = Fingerprint(loaded.extract["fingerprint"])
        ways_out = "Put back the diffusion model it was trained with, or train again on features of this one."
        self.fingerprint.require_equal(trained_on, str(self.folder), ways_out)
        self._pool: DecodePool | None = None
        self._held = ExitStack()

    def __call__(self, path: Path | str) -> ScoredVideo:
        """Return the score of one video, or why it has none."""
        return next(self.score([path]))

    def score(self, paths: Iterable[Path | str]) -> Iterator[ScoredVideo]:
        """Yield the score or the failure of each video, in the order given, decoding ahead."""
        yield from map(self.score_extracted, self.extract(paths))

    def extract(self, paths: Iterable[Path | str]) -> Iterator[ExtractedVideo | FailedVideo]:
        """Yield the features or the failure of each video, in the order given; its id is its path or URL as given."""
        sources = (VideoSource(str(path), file_location(path), seed_key=_ONE_SEED_FOR_ALL) for path in paths)
        units = ([source] for source in sources)  # so that a score depends on no other video, to the last bit
        yield from extract_units(units, self.backbone.extractor, self._opened_pool(), self.recipe)

    def score_extracted(self, result: ExtractedVideo | FailedVideo) -> ScoredVideo:
        """Return the score of a video whose features :meth:`extract` gave, or why it has none."""
        if isinstance(result, FailedVideo):
            return ScoredVideo(result.source.location, None, None, result.reason, result.detail)
        decoded = result.decoded
        return self.score_features(
            decoded.source.location, result.arrays, decoded.frame_indices.tolist(), decoded.timestamps.tolist()
        )

    def score_features(
        self, path: Path | str, arrays: Mapping[str, NDArray[Any]], frames: Sequence[int], times: Sequence[float]
    ) -> ScoredVideo:
        """Return the score of a video from its features.

        Args:
            path: Of the video, or its URL; not read.
            arrays: Name such as ``resize/latent`` to array.
            frames: Of each sampled frame, the index in the file.
            times: Of each sampled frame, seconds since the first.

        Raises:
            TrainingDataError: The features are incomplete or not finite.
            RegressorFolderError: They have other shapes than those the model was trained on.
        """
        predicted = predict(self._regressors, arrays)
        parts = zip(frames, times, predicted.frame_quality.tolist(), predicted.frame_weight.tolist(), strict=True)
        timeline = tuple(FrameQuality(*part) for part in parts)
        return ScoredVideo(path, predicted.score, predicted.score_std, timeline=timeline)

    def close(self) -> None:
        """End the decoding processes; scoring again starts others."""
        self._held.close()
        self._pool = None

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened_pool(self) -> DecodePool:
        if self._pool is None:
            runtime = self._runtime
            pool = DecodePool(
                self.recipe, workers=runtime.workers, timeout=runtime.decode_timeout, memory=runtime.decode_memory
            )
            self._pool = self._held.enter_context(pool)
        return self._pool
