"""``diffvqa export`` and ``diffvqa cache import`` as a user types them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from cache_material import failed, fill, usable

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, write_manifest


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A data set 'set' with three usable videos, one of which its manifest does not name."""
    run = tmp_path / "runs/set"
    fill(run / "features", usable("a", frames=2), failed("bad"), usable("b"), usable("unlisted"))
    rows = (("a", 3.5), ("bad", 1.0), ("b", None), ("absent", 2.0))
    manifest = Manifest(
        "set", tuple(ManifestRow(name, f"{name}.mp4", score, "g") for name, score in rows), Label("MOS")
    )
    write_manifest(run, manifest)
    return tmp_path / "runs"


def test_each_format_has_its_own_place(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("h5", "npz", "parquet"):
        assert main(["export", "set", "--format", name, "--runs", str(runs)]) == 0
        assert "set: 2 videos" in capsys.readouterr().out
    with h5py.File(runs / "set/set.h5") as file:
        assert sorted(file["video_id"].asstr()[:]) == ["a", "b"]
        assert "exported_by" in file.attrs["provenance"]
        assert file["score"].attrs["label"] == "MOS"
    with np.load(runs / "set/npz/a.npz") as stored:
        assert stored["score"] == 3.5
        assert stored["resize/latent"].shape == (2, 3, 2, 2)
    lines = {line["video_id"]: line for line in pq.read_table(runs / "set/set.parquet").to_pylist()}
    assert (lines["a"]["score"], lines["b"]["score"], lines["a"]["group"]) == (3.5, None, "g")


def test_some_arrays_go_to_a_place_of_ones_own(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.h5"
    assert main(["export", "set", "--arrays", "resize/latent,", "--out", str(out), "--runs", str(runs)]) == 0
    with h5py.File(out) as file:
        assert [*file["features"], *file["features/resize"]] == ["resize", "latent"]


def test_an_array_that_is_not_there_is_one_clear_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "set", "--arrays", "latent", "--runs", str(runs)]) == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown == "diffvqa: There is no array 'latent'. This cache has resize/latent, crop/frames."


def test_what_does_not_match_the_manifest_is_said_in_both_directions(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "set", "--runs", str(runs)]) == 0
    shown = capsys.readouterr().err
    assert "2 video(s) of the manifest have no features and are left out" in shown
    assert "1 video(s) with features are not in the manifest and are left out" in shown


def test_an_export_is_imported_again(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "set", "--runs", str(runs)]) == 0
    arguments = ["cache", "import", str(runs / "set/set.h5"), "--cache", str(tmp_path / "again")]
    assert main(arguments) == 0
    assert "2 videos and 1 failures imported, 0 were there" in capsys.readouterr().out
    again, first = FeatureCache(tmp_path / "again"), FeatureCache(runs / "set/features")
    assert {video_id: again[video_id].row for video_id in again.ids()} == {
        video_id: first[video_id].row for video_id in ("a", "b")
    }
    assert main(arguments) == 0
    assert "0 videos and 0 failures imported, 3 were there" in capsys.readouterr().out
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["cache", "import", str(tmp_path / "absent.h5"), "--cache", str(tmp_path / "again")]) == 2
    assert "absent.h5 is not there" in capsys.readouterr().err
