"""A stand-in for the official workflow: its four steps around this package's own model and settings.

    1. ffmpeg dumps every frame of every video as PNG (the caller runs it);
    2. and 3. ``python -m tests.benchmarks.whole.official_workflow resize|crop WORK``: the extractor runs once for
       each kind of view, frame by frame, and writes one file per frame;
    4. ``... merge WORK``: the files of a video's frames become one file per video.

The official code is not here. It is given what speaks for it: it knows which frames are wanted and runs the model on
those alone, one frame's views at a time; and its model, recipe, resizing and crops are exactly those it is compared
with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from diffvqa.pipeline._config import Settings, parse_assignment, resolve_settings


def main() -> None:
    """Run one step on the work folder: ``png/VIDEO/000001.png`` in, ``features/VIDEO/VIEW/*.npz``, ``merged/*.npz``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("resize", "crop", "merge"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change one setting")
    arguments = parser.parse_args()
    if arguments.step == "merge":
        merge(arguments.work)
    else:
        extract_pass(arguments.work, arguments.step, resolve_settings(None, dict(map(parse_assignment, arguments.set))))


def extract_pass(work: Path, view: str, settings: Settings) -> None:
    """Run the model over one kind of view of the wanted frames of all videos, and write a file per frame."""
    from PIL import Image

    from diffvqa.pipeline._backbone import load_backbone
    from diffvqa.stages._views import crop_views, place_crops, resize_view

    recipe = settings.extract
    extractor = load_backbone(recipe, settings.runtime).extractor
    for folder in sorted((work / "png").iterdir()):
        target = work / "features" / folder.name / view
        target.mkdir(parents=True)
        for path in wanted_frames(folder, recipe.frames):
            frame = np.asarray(Image.open(path).convert("RGB"))
            placement = place_crops(
                folder.name,
                *frame.shape[:2],
                crops=recipe.crops,
                view_size=recipe.view_size,
                seed=recipe.seed,
            )
            views = resize_view(frame, recipe.view_size)[None] if view == "resize" else crop_views(frame, placement)
            features = extractor(views, range(len(views)))
            np.savez(
                target / f"{path.stem}.npz",
                latent=np.empty(0) if features.latent is None else features.latent,
                multiscale=features.multiscale,
                frames=views,
            )


def wanted_frames(folder: Path, frames: int) -> list[Path]:
    """Return the frames at the centres of equal stretches, as the recipe samples them."""
    dumped = sorted(folder.iterdir())
    return [dumped[int((number + 0.5) * len(dumped) / frames)] for number in range(frames)]


def merge(work: Path) -> None:
    """Put the files of each video's frames into one, under the names that the features have in the cache."""
    (work / "merged").mkdir()
    for folder in sorted((work / "features").iterdir()):
        merged = {}
        for view in ("resize", "crop"):
            parts = [np.load(path) for path in sorted((folder / view).iterdir())]
            for name in parts[0].files:
                stacked = np.stack([part[name] for part in parts])
                merged[f"{view}/{name}"] = stacked[:, 0] if view == "resize" else stacked
        np.savez(work / "merged" / f"{folder.name}.npz", allow_pickle=False, **merged)


if __name__ == "__main__":
    main()
