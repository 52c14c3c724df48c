"""Splits as a file: what is written comes back, and what does not fit the data set is said."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.stages._errors import TrainingDataError
from diffvqa.stages._splits import Split, make_splits
from diffvqa.stages._splits_file import SplitsFile, read_splits, write_splits
from diffvqa.stages._train_recipe import TrainRecipe

TABLE = "video_id,one,two\r\na,train,\r\nb,validation,train\r\nc,test,validation\r\nd,,test\r\ne,,\r\n"
IDS = st.text(
    st.one_of(st.sampled_from("\",;\n\r\t \\'#é😀"), st.characters(exclude_categories=["Cs"])), min_size=1
).filter(lambda text: bool(text.strip()))


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "splits.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@given(st.lists(IDS, min_size=3, unique=True), st.integers(0, 2**30))
def test_what_is_written_comes_back(video_ids: list[str], seed: int) -> None:
    splits = make_splits({name: name for name in video_ids}, TrainRecipe(splits=3, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splits.csv"
        write_splits(path, splits)
        read = read_splits(path)
    assert read.splits == splits
    assert read.video_ids == tuple(sorted(video_ids))


def test_a_table_is_read(tmp_path: Path) -> None:
    read = read_splits(written(tmp_path, "\ufeff" + TABLE.replace("\r", "")))
    assert read.splits == (
        Split(("a",), ("b",), ("c",), 0, "one"),
        Split(("b",), ("c",), ("d",), 1, "two"),
    )
    assert read.video_ids == tuple("abcde")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table of splits"),
        ("video_id\na\n", "is no table of splits"),
        ("name,one\na,train\n", "is no table of splits: its first line is 'name,one'"),
        ("video_id,one,one\na,train,train\n", "line 1: split 'one' is there twice"),
        ("video_id,one\na,train,test\n", "line 2: 3 cells, but the header has 2"),
        ("video_id,one\n ,train\n", "line 2: the video id is empty"),
        ("video_id,one\na,train\na,test\n", "line 3: 'a' is already on line 2"),
        ("video_id,one\na,training\n", "line 2, column 'one': there is no part 'training'"),
        ('video_id,one\n"a"b,train\n', "line 2: "),
        (b"video_id,one\n\xff,train\n", "is not UTF-8 at byte 13"),
    ],
)
def test_a_mistake_in_the_file_is_pointed_out(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(TrainingDataError) as error:
        read_splits(written(tmp_path, text))
    assert message in error.value.what
    assert error.value.what.startswith(str(tmp_path / "splits.csv"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_file_gives_another_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TrainingDataError):
        assert read_splits(written(Path(folder), b"video_id,one\n" + content)).splits


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"splits\.csv cannot be read: No such file"):
        read_splits(tmp_path / "splits.csv")


@pytest.fixture
def file(tmp_path: Path) -> SplitsFile:
    return read_splits(written(tmp_path, TABLE))


def test_a_file_that_fits_is_used_as_it_is(file: SplitsFile) -> None:
    assert file.fit({name: name for name in "abcde"}) == file.splits


def test_a_video_that_failed_is_left_out_and_moves_no_other(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    file = read_splits(written(tmp_path, TABLE + "f,train,train\r\n"))
    (first, second) = file.splits
    expected = (replace(first, train=("a",)), replace(second, train=("b",)))
    assert file.fit({name: name for name in "abcde"}, known={"f"}) == expected
    assert "1 video(s)" in logged.text
    assert logged.text.strip().endswith("left out: f")


def test_videos_that_the_data_set_does_not_have_are_listed(file: SplitsFile) -> None:
    with pytest.raises(TrainingDataError, match=r"names 2 video\(s\) that the data set does not have: d, e\."):
        file.fit({name: name for name in "abc"})


def test_videos_that_the_file_forgets_are_listed(file: SplitsFile) -> None:
    with pytest.raises(TrainingDataError, match=r"does not name 1 video\(s\) of the data set: x\.") as error:
        file.fit({name: name for name in "abcdex"})
    assert "empty cells" in error.value.hint


def test_a_part_that_is_left_empty_is_refused(file: SplitsFile) -> None:
    with pytest.raises(TrainingDataError, match="Split 'two' has no video to use for its part 'test'"):
        file.fit({name: name for name in "abce"}, known={"d"})


def test_a_content_on_both_sides_is_warned_of(file: SplitsFile, logged: pytest.LogCaptureFixture) -> None:
    assert file.fit({"a": "x", "b": "y", "c": "x", "d": "z", "e": "e"}) == file.splits
    assert "split 'one': 1 content group(s)" in logged.text
    assert "split 'two'" not in logged.text
