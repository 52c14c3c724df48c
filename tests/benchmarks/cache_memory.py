"""Whether writing and verifying a cache take more memory the more videos there are.

For each number of videos a fresh process writes that many, small and synthetic, and another verifies them; each says
its peak resident memory. The target is a ratio of at most 1.1 between the most and the fewest videos.

Run it as ``python -m tests.benchmarks.cache_memory``; ``--quick`` goes to 1,000 videos, the whole to 10,000.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

TARGET = 1.1
_COMMON = """
import resource, sys
from pathlib import Path
import numpy as np
from diffvqa.cache.fingerprint import Fingerprint
from diffvqa.cache.schema import SCHEMA_VERSION, ArraySpec, CacheHeader, SourceStamp, VideoRow
from diffvqa.cache.shards import ShardEntry
from diffvqa.cache.verify import verify
from diffvqa.cache.writer import CacheWriter

location, videos = sys.argv[1], int(sys.argv[2])
SHAPES = {"latent": (8, 4, 16, 16), "multiscale": (8, 24, 8, 8)}
"""
_STEPS = {
    "write": """
fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION})
arrays = tuple(
    ArraySpec(name=f"resize/{name}", dimensions=("frame", "channel", "y", "x"), shape=shape, dtype="float16", unit="1",
              value_range=None, description=name)
    for name, shape in SHAPES.items()
)
header = CacheHeader(schema_version=SCHEMA_VERSION, fingerprint=dict(fingerprint.fields),
                     fingerprint_digest=fingerprint.digest, recipe={}, arrays=arrays, software={}, created="now")
rng = np.random.default_rng(0)
paths = ((f"set/video {number}.mp4", Path(f"/videos/{number}.mp4")) for number in range(videos))
with CacheWriter(location, header, shard_videos=32) as writer:
    for video_id in writer.plan(paths).pending:
        row = VideoRow(video_id=video_id, status="ok", source=SourceStamp(path=video_id, size=1, mtime_ns=1),
                       frame_indices=tuple(range(8)), timestamps=tuple(map(float, range(8))))
        features = {f"resize/{name}": rng.normal(size=shape).astype(np.float16) for name, shape in SHAPES.items()}
        writer.add(ShardEntry(row, features))
""",
    "verify": """
report = verify(location)
assert (report.videos, report.damages) == (videos, ()), report
""",
}
_END = """
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    """Measure, and show the peaks and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 videos")
    counts = (100, 1_000) if parser.parse_args().quick else (100, 1_000, 10_000)
    peaks: dict[str, list[float]] = {step: [] for step in _STEPS}
    for videos in counts:
        with tempfile.TemporaryDirectory() as folder:
            for step in _STEPS:
                peaks[step].append(peak_of(step, Path(folder) / "cache", videos))
    table = Table("step", *(f"{videos:,} videos" for videos in counts), "ratio", "target", title="peak memory, MB")
    for step, found in peaks.items():
        table.add_row(step, *(f"{peak:.1f}" for peak in found), f"{found[-1] / found[0]:.3f}", f"{TARGET}")
    Console().print(table)


def peak_of(step: str, cache: Path, videos: int) -> float:
    """Return the peak resident memory of one step in a process of its own, in MB."""
    command = [sys.executable, "-c", _COMMON + _STEPS[step] + _END, str(cache), str(videos)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e3


if __name__ == "__main__":
    main()
