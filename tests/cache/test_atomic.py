"""Files are there and whole, or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._atomic import atomic_output, atomic_write_text, remove_leftovers
from diffvqa.cache._errors import OutputError


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_written_as_it_is(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "note.txt")
        atomic_write_text(path, text)
        assert path.read_bytes() == text.encode()


def test_an_older_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "note.txt"
    atomic_write_text(path, "old")
    atomic_write_text(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.write_text("")
    atomic_write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == usual.stat().st_mode


def test_a_failing_block_leaves_the_older_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_output(path) as temporary:
            assert temporary.suffix == ".mp4"
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "Free some disk space"),
        (errno.EACCES, "Choose a folder you may write to"),
        (errno.EIO, "another"),
    ],
)
def test_a_failing_disk_is_reported_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=hint) as caught:
        atomic_write_text(tmp_path / "note.txt", "text")
    assert str(tmp_path / "note.txt") in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="A file stands where a folder is needed"):
        atomic_write_text(tmp_path / "file" / "note.txt", "text")
    with pytest.raises(OutputError, match="A file stands where a folder is needed"):
        atomic_write_text(tmp_path / "folder", "text")


def test_text_that_is_no_unicode_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no Unicode text"):
        atomic_write_text(tmp_path / "note.txt", "a\udcffb")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "bikes" / "clip.mp4"
    atomic_write_text(kept, "clip")
    with atomic_output(tmp_path / "bikes" / "other.mp4") as temporary:
        temporary.write_text("half")
        stale = temporary.with_stem(temporary.stem + "0")
        stale.write_text("half")
    assert remove_leftovers(tmp_path) == 1
    assert sorted(path.name for path in kept.parent.iterdir()) == ["clip.mp4", "other.mp4"]
    assert remove_leftovers(tmp_path) == 0
