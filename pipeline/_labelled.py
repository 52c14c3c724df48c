"""Data sets with features and labels, one or several at once, as stage two takes them."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._streaming import in_disk_order
from diffvqa.pipeline._errors import ConfigError
from diffvqa.pipeline._manifest import Label, Manifest, read_manifest
from diffvqa.pipeline._runs import DatasetRun
from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._network_maps import NetworkMaps, network_maps
from diffvqa.stages._regressor_folder import REGRESSOR_FORMAT
from diffvqa.stages._splits import Split, make_splits
from diffvqa.stages._splits_file import read_splits
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import VideoSample

logger = logging.getLogger(__name__)

_TRAIN_APART = "Extract them with one recipe and one model, or train on each alone."


@dataclass(frozen=True)
class LabelledSet:
    """One data set's features and labels.

    Attributes:
        name: The data set's.
        manifest: Its videos.
        features: Its cache.
        samples: The videos with both a score and features.
    """

    name: str
    manifest: Manifest
    features: FeatureCache
    samples: tuple[VideoSample, ...]

    @property
    def unused(self) -> int:
        """Number of labelled videos that have no features."""
        return sum(row.score is not None for row in self.manifest.rows) - len(self.samples)


@dataclass(frozen=True)
class LabelledSets:
    """Several data sets as one; with more than one, a video's id is preceded by its data set's name and a slash.

    Attributes:
        sets: At least one, all with features of one fingerprint.
    """

    sets: tuple[LabelledSet, ...]

    @property
    def samples(self) -> tuple[VideoSample, ...]:
        """The samples of all sets."""
        return tuple(
            replace(sample, video_id=self._joint(each, sample.video_id))
            for each in self.sets
            for sample in each.samples
        )

    @property
    def labels(self) -> dict[str, Label]:
        """By data set, what its scores are."""
        return {each.name: each.manifest.label for each in self.sets}

    @property
    def extract(self) -> dict[str, Any]:
        """How the features were made, as JSON."""
        header = self.sets[0].features.header
        return {
            "recipe": header.recipe,
            "fingerprint": header.fingerprint,
            "fingerprint_digest": header.fingerprint_digest,
        }

    @property
    def networks(self) -> tuple[NetworkMaps, ...]:
        """What of ``multiscale`` each network of the backbone has, in their order."""
        arrays = self.sets[0].features.header.arrays
        return network_maps(next((spec.levels for spec in arrays if spec.name == "resize/multiscale"), {}))

    def __getitem__(self, video_id: str, /) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one video."""
        for each in self.sets:
            own = video_id.removeprefix(self._joint(each, ""))
            if self._joint(each, own) == video_id and own in each.features:
                return each.features[own]
        raise KeyError(video_id)

    def require_same_features(self, other: LabelledSets) -> None:
        """Make sure that the features of other data sets were made in the same way.

        Raises:
            FingerprintMismatchError: They were not; the message names the field and both values.
        """
        mine, theirs = (Fingerprint(each.extract["fingerprint"]) for each in (self, other))
        mine.require_equal(theirs, other.sets[0].features.url, _TRAIN_APART)

    def splits(self, recipe: TrainRecipe, *, file: Path | None = None, official: bool = True) -> tuple[Split, ...]:
        """Return the splits to train on: those of a file, the official ones where there are any, or random ones.

        Each data set is split by itself, so that a video falls on the same side whatever its set is trained with.

        Args:
            recipe: Of random splits.
            file: From :func:`~diffvqa.stages._splits_file.write_splits`; ids as in :attr:`samples`.
            official: False for random splits where a data set has its own.

        Raises:
            TrainingDataError: The file or the official splits do not fit the data, or there are too few contents.
        """
        if file is not None:
            groups = {sample.video_id: sample.group for sample in self.samples}
            known = {self._joint(each, row.video_id) for each in self.sets for row in each.manifest.rows}
            return read_splits(file).fit(groups, known)
        of_each = [self._splits_of(each, recipe, official=official) for each in self.sets]
        counts = {each.name: len(splits) for each, splits in zip(self.sets, of_each, strict=True)}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise TrainingDataError(f"The data sets have different numbers of splits: {told}.", "Use --random-splits.")
        return tuple(_joined(same) for same in zip(*of_each, strict=True))

    def identity(self, recipe: TrainRecipe, splits: Sequence[Split], **more: object) -> str:
        """Return a digest of all that a training on these sets depends on."""
        # In the order of the disk: a row is read with all the others of its shard.
        digests = {
            each.name: {
                video_id: each.features[video_id].row.digests
                for video_id in in_disk_order(each.features, [sample.video_id for sample in each.samples])
            }
            for each in self.sets
        }
        content = {
            "recipe": recipe.model_dump(),
            "regressor": REGRESSOR_FORMAT,
            "fingerprint": self.extract["fingerprint_digest"],
            "samples": [asdict(sample) for sample in self.samples],
            "features": digests,
            "splits": [asdict(split) for split in splits],
            **more,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _splits_of(self, each: LabelledSet, recipe: TrainRecipe, *, official: bool) -> tuple[Split, ...]:
        groups = {sample.video_id: sample.group for sample in each.samples}
        splits = make_splits(groups, recipe, each.manifest.official_splits() if official else None)
        joint = functools.partial(self._joint, each)
        return tuple(
            replace(
                split,
                train=tuple(map(joint, split.train)),
                validation=tuple(map(joint, split.validation)),
                test=tuple(map(joint, split.test)),
            )
            for split in splits
        )

    def _joint(self, each: LabelledSet, video_id: str) -> str:
        return video_id if len(self.sets) == 1 else f"{each.name}/{video_id}"


def load_labelled(names: Sequence[str], runs: Path, *, cache: str | None = None) -> LabelledSets:
    """Open the features and labels of prepared and extracted data sets.

    Args:
        names: Of the data sets, at least one.
        runs: Folder of all outputs.
        cache: The features, for a single data set; ``runs/<name>/features`` when None.

    Raises:
        ConfigError: A data set is named twice, or one cache was given for several.
        DatasetError: A data set is not prepared.
        CacheError: There are no features, or they are damaged.
        FingerprintMismatchError: The data sets have different features.
        TrainingDataError: No video has both a score and features.
    """
    if len(set(names)) < len(names):
        raise ConfigError("A data set is named twice.", "Name each once.")
    if cache is not None and len(names) > 1:
        raise ConfigError("--cache names the features of one data set, but several are given.", "Leave it out.")
    sets = tuple(_load_one(DatasetRun(runs, name).require_prepared(), cache) for name in names)
    for each in sets[1:]:
        LabelledSets(sets[:1]).require_same_features(LabelledSets((each,)))
    return LabelledSets(sets)


def _load_one(run: DatasetRun, cache: str | None) -> LabelledSet:
    manifest = read_manifest(run.folder)
    features = FeatureCache(cache or run.features)
    samples = tuple(
        VideoSample(row.video_id, row.score, row.group, run.name)
        for row in manifest.rows
        if row.score is not None and row.video_id in features
    )
    if not samples:
        raise TrainingDataError(
            f"No video of '{run.name}' has both a score and features.",
            "Prepare the data set with labels, and extract it.",
        )
    labelled = LabelledSet(run.name, manifest, features, samples)
    if labelled.unused:
        logger.warning("%s: %d labelled video(s) have no features and are left out", run.name, labelled.unused)
    return labelled


def _joined(splits: Sequence[Split]) -> Split:
    """Return the same split of several data sets as one."""
    return Split(
        train=tuple(video_id for split in splits for video_id in split.train),
        validation=tuple(video_id for split in splits for video_id in split.validation),
        test=tuple(video_id for split in splits for video_id in split.test),
        index=splits[0].index,
        name=splits[0].name,
    )
