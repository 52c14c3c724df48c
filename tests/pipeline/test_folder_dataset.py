"""The recipe ``folder``, and finding recipes by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Manifest, ManifestRow, MatchReport
from diffvqa.pipeline.datasets import RECIPES, PreparedDataset, PrepareRequest, Progress, find_recipe
from diffvqa.pipeline.datasets._folder import find_videos


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_videos_are_found_at_any_depth_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/z.MKV", "a/deep/er/x.webm", "a.mp4", "a/notes.txt", "mp4", "a.mp4.part")
    touch(tmp_path, ".hidden.mp4", ".cache/c.mp4", "a/._b.mp4")
    found = [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path)]
    assert found == ["a.mp4", "a/deep/er/x.webm", "a/z.MKV", "b.mp4"]


def test_linked_folders_are_entered_but_not_for_ever(tmp_path: Path) -> None:
    touch(tmp_path, "disk/c.mp4", "set/a.mp4")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "set")
    found = [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path / "set")]
    assert found == ["set/a.mp4", "set/more/c.mp4"]


def test_a_hidden_directory_may_be_asked_for_itself(tmp_path: Path) -> None:
    assert len(find_videos(touch(tmp_path / ".videos", "a.mp4"))) == 1


@pytest.mark.parametrize("name", ["nothing", "file.mp4", "empty"])
def test_a_directory_without_videos_is_reported(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.mp4", "empty/notes.txt")
    with pytest.raises(DatasetError) as caught:
        find_videos(tmp_path / name)
    assert str(tmp_path / name) in caught.value.what
    assert caught.value.hint


def test_a_folder_becomes_a_data_set_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.mov")
    steps: list[Progress] = []
    prepared = find_recipe("folder").prepare(PrepareRequest("mine", tmp_path / "runs", videos=tmp_path), steps.append)
    assert prepared == PreparedDataset(
        Manifest(
            "mine",
            (
                ManifestRow("a.mp4", str(tmp_path / "a.mp4"), None, "a.mp4"),
                ManifestRow("sub/b.mov", str(tmp_path / "sub" / "b.mov"), None, "sub/b.mov"),
            ),
        ),
        MatchReport(0, (), ("a.mp4", "sub/b.mov")),
    )
    assert steps[-1].done == steps[-1].total == 2


def test_a_missing_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--videos"):
        find_recipe("folder").prepare(PrepareRequest("mine", tmp_path), lambda _: None)


def test_recipes_are_found_by_name() -> None:
    assert list(RECIPES) == [
        "konvid-1k",
        "live-vqc",
        "youtube-ugc",
        "lsvq",
        "lsvq-train",
        "lsvq-test",
        "lsvq-test-1080p",
        "cvd2014",
        "live-qualcomm",
        "maxwell",
        "live-yt-gaming",
        "biq2021",
        "koniq-10k",
        "csv",
        "folder",
        "demo",
    ]
    for name, recipe in RECIPES.items():
        assert find_recipe(name) is recipe
        assert recipe.name == name
        assert recipe.summary


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(
        DatasetError, match=r"Did you mean 'folder'\? The recipes are: biq2021, csv, cvd2014, demo, folder"
    ):
        find_recipe("foldr")
    with pytest.raises(DatasetError, match=r"'xyz'\. The recipes are"):
        find_recipe("xyz")


def test_listing_recipes_imports_nothing_heavy() -> None:
    code = "import sys, diffvqa.pipeline.datasets; print(*{'numpy', 'PIL', 'torch', 'imageio_ffmpeg'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
