"""How long a large cache takes to open, and an extraction to resume over it.

A cache of 100,000 videos is made with real marks and no data, and a manifest with as many real, empty files. Then

* opening: ``FeatureCache(path)``, in a fresh process without the imports, with the index and without it;
* resuming: a manifest read, a writer opened, its lock taken, leftovers looked for, every source file looked at.

Run it as ``python -m tests.benchmarks.cache_catalogue``; ``--quick`` takes 5,000. The targets are 1 s to open and
3 s to resume, for 100,000 videos; the processor's time is shown too, which other work on the machine does not touch.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffvqa.cache._catalogue import CATALOGUE_FOLDER
from diffvqa.cache._fingerprint import Fingerprint
from diffvqa.cache._schema import (
    SCHEMA_VERSION,
    ArraySpec,
    CacheHeader,
    ShardMark,
    SourceStamp,
    StoredFile,
    VideoRow,
    write_header,
)
from diffvqa.cache._sealed import seal
from diffvqa.cache._shards import shard_name
from diffvqa.cache._storage import open_storage
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._manifest import Manifest, ManifestRow, read_manifest, write_manifest

SHARD_VIDEOS = 32
FRAMES = 8
FAILED_ONE_IN = 50
_DIGEST = hashlib.sha256(b"").hexdigest()
_ARRAYS = [f"{branch}/{name}" for branch in ("resize", "crop") for name in ("latent", "multiscale", "frames")]
_OPEN = """
import sys, time
from pathlib import Path
from diffvqa.cache._reader import FeatureCache
begun = time.perf_counter(), time.process_time()
videos = len(FeatureCache(sys.argv[1]).ids())
print(time.perf_counter() - begun[0], time.process_time() - begun[1])
"""


def main() -> None:
    """Make the cache, take the times, and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 videos in the place of 100,000")
    videos = 5_000 if parser.parse_args().quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        manifest = make_manifest(root, videos)
        make_cache(root / "cache", manifest)
        rows = {"open, no index": open_cache(root / "cache")}
        with CacheWriter(root / "cache", header(), shard_videos=SHARD_VIDEOS):
            pass
        rows["open"] = open_cache(root / "cache")
        rows["resume"] = resume(root)
        shutil.rmtree(root / "cache" / CATALOGUE_FOLDER)
        rows["resume, no index"] = resume(root)
    show(videos, rows)


def make_manifest(root: Path, videos: int) -> Manifest:
    """Write a manifest and its video files, which are empty."""
    (root / "videos").mkdir()
    rows = []
    for number in range(videos):
        path = root / f"videos/{number:06d}.mp4"
        path.touch()
        rows.append(ManifestRow(f"set/{number:06d}.mp4", str(path), 3.0, f"group {number % 999}"))
    manifest = Manifest("set", tuple(rows))
    write_manifest(root, manifest)
    return manifest


def make_cache(directory: Path, manifest: Manifest) -> None:
    """Write a header and the marks of all but the last video; the shards themselves are empty folders."""
    (directory / "shards").mkdir(parents=True)
    write_header(open_storage(directory), header())
    rows = [row_of(number, row) for number, row in enumerate(manifest.rows[:-1])]
    files = {
        f"{branch}/{name}": StoredFile(size=1, sha256=_DIGEST) for branch in ("resize", "crop") for name in _ARRAYS
    }
    for sequence, first in enumerate(range(0, len(rows), SHARD_VIDEOS)):
        mark = ShardMark(
            schema_version=SCHEMA_VERSION,
            fingerprint_digest=header().fingerprint_digest,
            files=files,
            rows=tuple(rows[first : first + SHARD_VIDEOS]),
        )
        name = directory / "shards" / shard_name(0, sequence)
        name.with_suffix(".zarr").mkdir()
        name.with_suffix(".json").write_bytes(seal(mark.model_dump_json()))


def row_of(number: int, row: ManifestRow) -> VideoRow:
    """Return a row as an extraction writes it; one in fifty failed."""
    source = SourceStamp.of(row.path).model_copy(update={"sha256": _DIGEST})
    if number % FAILED_ONE_IN == 0:
        detail = "moov atom not found"
        return VideoRow(video_id=row.video_id, status="failed", reason="unreadable", detail=detail, source=source)
    return VideoRow(
        video_id=row.video_id,
        status="ok",
        source=source,
        frame_indices=tuple(range(FRAMES)),
        timestamps=tuple(index / 29.97 for index in range(FRAMES)),
        crop_positions=((3, 5), (7, 11), (13, 17)),
        width=1920,
        height=1080,
        decoder="decord 0.6.0",
        extents={"frame": FRAMES, "crop": 3},
        digests=dict.fromkeys(_ARRAYS, _DIGEST),
    )


def header() -> CacheHeader:
    """Return the header of the cache."""
    fingerprint = Fingerprint({"schema_version": SCHEMA_VERSION})
    spec = ArraySpec(
        name="resize/latent",
        dimensions=("frame",),
        shape=(FRAMES,),
        dtype="float16",
        unit="1",
        value_range=None,
        description="a latent",
    )
    return CacheHeader(
        schema_version=SCHEMA_VERSION,
        fingerprint=dict(fingerprint.fields),
        fingerprint_digest=fingerprint.digest,
        recipe={},
        arrays=(spec,),
        software={},
        created="2026-01-01T00:00:00+00:00",
    )


@dataclass(frozen=True)
class Took:
    """How long something took, in seconds by the clock and of the processor."""

    clock: float
    processor: float


def open_cache(directory: Path) -> Took:
    """Return how long a fresh process takes to open the cache."""
    done = subprocess.run([sys.executable, "-c", _OPEN, str(directory)], check=True, capture_output=True, text=True)
    return Took(*map(float, done.stdout.split()))


def resume(root: Path) -> Took:
    """Return how long it takes until the first new video could start."""
    begun = time.perf_counter(), time.process_time()
    manifest = read_manifest(root)
    with CacheWriter(root / "cache", header(), shard_videos=SHARD_VIDEOS) as writer:
        plan = writer.plan((row.video_id, row.location) for row in manifest.rows)
        took = Took(time.perf_counter() - begun[0], time.process_time() - begun[1])
    if plan.pending != (manifest.rows[-1].video_id,):
        raise RuntimeError(f"pending are {plan.pending}")
    return took


def show(videos: int, rows: dict[str, Took]) -> None:
    """Print the times beside their targets, which are for 100,000 videos."""
    targets = {"open": 1.0, "resume": 3.0}
    table = Table("step", "seconds", "of the processor", "target", "ratio", title=f"a cache of {videos:,} videos")
    for step, took in rows.items():
        target = targets.get(step)
        against = (f"{target:.0f}", f"{took.clock / target:.2f}") if target else ("", "")
        table.add_row(step, f"{took.clock:.2f}", f"{took.processor:.2f}", *against)
    Console().print(table)


if __name__ == "__main__":
    main()
