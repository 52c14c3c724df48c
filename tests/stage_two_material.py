"""Random features of random videos, with or without something in them that can be learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter
from diffvqa.stages._splits import Split, make_splits
from diffvqa.stages._train_recipe import TrainRecipe
from diffvqa.stages._training_data import VideoSample

Arrays = dict[str, NDArray[Any]]

RECIPE = TrainRecipe(
    splits=2,
    epochs=3,
    batch_size=4,
    learning_rate=5e-3,
    width=4,
    tcab_patch=8,
    tcab_width=4,
    tcab_state=2,
    head_width=8,
    dropout=0.1,
)


@dataclass(frozen=True)
class Material:
    """Features by id, and their samples."""

    features: dict[str, Arrays]
    samples: list[VideoSample]

    def splits(self, recipe: TrainRecipe = RECIPE) -> tuple[Split, ...]:
        return make_splits({sample.video_id: sample.group for sample in self.samples}, recipe)

    def official_part(self, video_id: str) -> str:
        """Every third video is tested on."""
        return "test" if list(self.features).index(video_id) % 3 == 0 else "train"


def make_features(seed: int, quality: float, frames: int = 3, crops: int = 2) -> Arrays:
    """Random features in which the quality moves one channel of the latents and one of the multiscale maps."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for view, leading in (("resize", (frames,)), ("crop", (frames, crops))):
        latent, multiscale = rng.normal(size=(*leading, 3, 8, 8)), rng.normal(size=(*leading, 5, 4, 4))
        latent[..., 0, :, :] += 2 * quality
        multiscale[..., 2, :, :] -= 2 * quality
        arrays[f"{view}/latent"] = latent.astype(np.float16)
        arrays[f"{view}/multiscale"] = multiscale.astype(np.float16)
        arrays[f"{view}/frames"] = rng.integers(0, 256, (*leading, 8, 8, 3), np.uint8)
    return arrays


def make_material(
    videos: int = 15, *, frames: int | None = None, dataset: str = "", scale: float = 20.0, prefix: str = "v"
) -> Material:
    """Videos of 2 to 4 frames, or of ``frames``, each of a content of its own, with a planted score around 50."""
    qualities = np.random.default_rng(0).permutation(np.linspace(-1.0, 1.0, videos))
    ids = [f"{prefix}{number:02d}" for number in range(videos)]
    features = {
        video_id: make_features(number, float(quality), frames=frames or 2 + number % 3)
        for number, (video_id, quality) in enumerate(zip(ids, qualities, strict=True))
    }
    samples = [
        VideoSample(video_id, 50.0 + scale * float(quality), f"content {number}", dataset)
        for number, (video_id, quality) in enumerate(zip(ids, qualities, strict=True))
    ]
    return Material(features, samples)


def make_ordered(videos: int = 60, frames: int = 6) -> Material:
    """Videos of one and the same brightening, half of them played backwards: the score says which."""
    rng = np.random.default_rng(3)
    features: dict[str, Arrays] = {}
    samples = []
    for number in range(videos):
        forwards = number % 2 == 0
        ramp = np.linspace(-1.0, 1.0, frames) if forwards else np.linspace(1.0, -1.0, frames)
        arrays: Arrays = {}
        for view, crops in (("resize", ()), ("crop", (1,))):
            level = ramp.reshape(frames, *(1 for _ in crops), 1, 1, 1)
            noise = 0.1 * rng.normal(size=(frames, *crops, 3, 8, 8))
            arrays[f"{view}/latent"] = (level + noise).astype(np.float16)
            noise = 0.1 * rng.normal(size=(frames, *crops, 5, 4, 4))
            arrays[f"{view}/multiscale"] = (level + noise).astype(np.float16)
            pictures = 128 + 80 * level + 4 * rng.normal(size=(frames, *crops, 8, 8, 3))
            arrays[f"{view}/frames"] = pictures.clip(0, 255).astype(np.uint8)
        features[f"v{number:02d}"] = arrays
        samples.append(VideoSample(f"v{number:02d}", float(forwards) + 0.01 * float(rng.normal()), f"content {number}"))
    return Material(features, samples)


def write_dataset(
    runs: Path,
    name: str,
    data: Material,
    *,
    official: bool = False,
    levels: Mapping[str, tuple[int, int]] | None = None,
    **fingerprint: int,
) -> None:
    """Write the folder of a data set as ``prepare`` and ``extract`` leave it; ``levels`` are those of the maps."""
    rows = [["video_id", "path", "score", "group", "split"]]
    for sample in data.samples:
        part = data.official_part(sample.video_id) if official else ""
        rows.append([sample.video_id, f"/nowhere/{sample.video_id}", repr(sample.score), sample.group, part])
    (runs / name).mkdir(parents=True, exist_ok=True)
    (runs / name / "manifest.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    example = next(iter(data.features.values()))
    most = max(len(arrays["resize/latent"]) for arrays in data.features.values())
    specs = tuple(
        ArraySpec(
            name=array,
            dimensions=("frame", *(("crop",) if array.startswith("crop/") else ()), "a", "b", "c"),
            shape=(most, *values.shape[1:]),
            dtype=str(values.dtype),
            unit="1",
            value_range=None,
            description="made for a test",
            levels=dict(levels or {}) if array.endswith("/multiscale") else {},
        )
        for array, values in example.items()
    )
    made_by = Fingerprint({"schema_version": SCHEMA_VERSION, "frames": most, **fingerprint})
    header = CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(made_by.fields),
        fingerprint_digest=made_by.digest,
        recipe={"model": "tiny", "frames": most},
        arrays=specs,
        software={},
        created="2026-01-01T00:00:00+00:00",
    )
    with CacheWriter(runs / name / "features", header, shard_videos=8) as writer:
        for video_id, arrays in data.features.items():
            frames = tuple(range(len(arrays["resize/latent"])))
            row = VideoRow(
                video_id=video_id,
                status="ok",
                source=SourceStamp.of(Path("absent")),
                frame_indices=frames,
                timestamps=tuple(map(float, frames)),
            )
            writer.add(ShardEntry(row, arrays))
