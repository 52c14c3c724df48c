"""What it costs to sample 8 frames of a minute of 1080p H.264, beside decoding all of it.

The file has a key frame every 250 frames, x264's default, so a sampled frame costs the decoding of those since its key
frame. Each way runs in a fresh process, which reports

* seconds, without its imports;
* peak memory over what the imports alone take, in MiB;
* MiB read from the file: all of it once to list its frames, and what is decoded again.

Run it as ``python -m tests.benchmarks.sampling``; ``--quick`` takes ten seconds of a small picture.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffvqa.pipeline._ffmpeg import find_ffmpeg
from diffvqa.stages._decoders.pyav_reader import PyAVReader
from diffvqa.stages._decoders.video_index import index_video
from diffvqa.stages._decoding import VideoSource, decode_video
from diffvqa.stages._extract_recipe import ExtractRecipe

_MIB = 2**20
_FRAMES = 8


@dataclass(frozen=True)
class Cost:
    """What one way of reading took.

    Attributes:
        seconds: Of the wall clock.
        memory: Peak over what was taken before, in MiB.
        read: From files, in MiB.
        frames: Given.
    """

    seconds: float
    memory: float
    read: float
    frames: int


def sample_with_decord(clip: Path) -> int:
    """Sample as an extraction does; decord reads this file."""
    return len(decode_video(VideoSource("clip", clip), ExtractRecipe(frames=_FRAMES, decoder="decord")).resize)


def sample_with_pyav(clip: Path) -> int:
    """Sample as an extraction does where there is no decord."""
    return len(decode_video(VideoSource("clip", clip), ExtractRecipe(frames=_FRAMES, decoder="pyav")).resize)


def list_frames(clip: Path) -> int:
    """Find out which frames there are, the part of sampling that reads the whole file."""
    return len(index_video(clip).times.starts)


def decode_all(clip: Path) -> int:
    """Decode every frame to RGB and drop it."""
    index = index_video(clip)
    with PyAVReader(clip, index) as reader:
        return sum(reader.read(i) is not None for i in range(len(index.times.starts)))


WAYS: dict[str, Callable[[Path], int]] = {
    "sample 8 frames, decord": sample_with_decord,
    "sample 8 frames, PyAV": sample_with_pyav,
    "list the frames alone": list_frames,
    "decode every frame": decode_all,
}


def measure(way: str, clip: Path) -> Cost:
    """Run one way in this process, which must be fresh."""
    memory_before, read_before = _peak_memory(), _bytes_read()
    begun = time.perf_counter()
    frames = WAYS[way](clip)
    seconds = time.perf_counter() - begun
    return Cost(seconds, _peak_memory() - memory_before, (_bytes_read() - read_before) / _MIB, frames)


def measure_in_fresh_process(way: str, clip: Path) -> Cost:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.sampling", "--measure", way, str(clip)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    return Cost(**json.loads(answer.stdout.splitlines()[-1]))


def make_clip(path: Path, *, seconds: int, size: str) -> None:
    """Make a moving picture with some noise, so that its frames are as large as real ones."""
    source = f"testsrc2=size={size}:rate=30:duration={seconds},noise=alls=6:allf=t"
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "26", "-pix_fmt", "yuv420p", "-g", "250"]
    find_ffmpeg().run(["-f", "lavfi", "-i", source, *encoding, str(path)], purpose="the benchmark's clip")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten seconds of 640 x 360")
    parser.add_argument(
        "--clip", type=Path, help="sample this file instead of making one; it is made if it is not there"
    )
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "CLIP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, clip = arguments.measure
        sys.stdout.write(json.dumps(asdict(measure(way, Path(clip)))) + "\n")
        return
    seconds, size = (10, "640x360") if arguments.quick else (60, "1920x1080")
    with tempfile.TemporaryDirectory(prefix="diffvqa-benchmark-") as folder:
        clip = arguments.clip or Path(folder, "clip.mp4")
        if not clip.exists():
            make_clip(clip, seconds=seconds, size=size)
        costs = {way: measure_in_fresh_process(way, clip) for way in WAYS}
        title = (
            f"{clip.name if arguments.clip else f'{seconds} s of {size} H.264'}, {clip.stat().st_size / _MIB:.0f} MiB"
        )
    Console().print(_table(title, costs))


def _table(title: str, costs: dict[str, Cost]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for column in ("frames", "seconds", "of decoding all", "peak MiB", "MiB read"):
        table.add_column(column, justify="right")
    whole = costs["decode every frame"].seconds
    for way, cost in costs.items():
        ratio = f"{cost.seconds / whole:.2f}"
        table.add_row(way, str(cost.frames), f"{cost.seconds:.2f}", ratio, f"{cost.memory:.0f}", f"{cost.read:.0f}")
    return table


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _bytes_read() -> int:
    """Return what this process has read so far, from the disk or from memory; 0 where the system does not tell."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return int(counters.read_text().split("rchar:")[1].split()[0])


if __name__ == "__main__":
    main()
