"""The documentation's Python runs as it stands, on a small cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cache_material import failed, header, usable

from diffvqa.cache._shards import ShardEntry
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline._manifest import Manifest, ManifestRow, write_manifest

PAGE = Path(__file__).parents[2] / "docs/python-api.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/demo: features under every name that the page uses, and a manifest."""
    place = tmp_path_factory.mktemp("docs")
    first, second = header().arrays
    names = {"resize/latent": first, "resize/multiscale": first, "crop/latent": second}
    specs = tuple(spec.model_copy(update={"name": name}) for name, spec in names.items())
    ids = [f"v{number}" for number in range(5)]
    with CacheWriter(
        place / "runs/demo/features", header().model_copy(update={"arrays": specs}), shard_videos=2
    ) as writer:
        for number, video_id in enumerate(ids):
            entry = usable(video_id, frames=1 + number % 4)
            assert entry.arrays is not None
            arrays = {name: entry.arrays[spec.name] for name, spec in names.items()}
            writer.add(ShardEntry(entry.row, arrays))
        writer.add(failed("bad"))
    rows = [ManifestRow(video_id, f"{video_id}.mp4", float(number), "g") for number, video_id in enumerate(ids)]
    write_manifest(place / "runs/demo", Manifest("demo", tuple(rows)))
    return place


@pytest.mark.parametrize("number", range(4))
def test_the_documented_lines_run(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BLOCKS) == 4
    monkeypatch.chdir(folder)
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), {"__name__": "__main__"})  # noqa: S102
