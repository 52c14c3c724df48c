"""Label files are found beside the videos, told apart by name and columns, and read whatever their format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from label_material import prepare, scores, touch, write, write_mat_5, write_mat_73

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline.datasets import _label_table as label_table
from diffvqa.pipeline.datasets._label_table import read_label_table

LABELS = "flickr_id,mos\n1,3\n2,4\n"
OTHER_LABELS = "flickr_id,mos\n1,1\n2,2\n"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return touch(tmp_path / "konvid" / "videos", "1.mp4", "2.mp4")


@pytest.mark.parametrize(
    "place", ["KoNViD_1k_mos.csv", "metadata/KoNViD_1k_mos.csv", "../KoNViD_1k_mos.csv", "konvid_1k_MOS.CSV"]
)
def test_labels_are_found_inside_and_beside_the_videos(videos: Path, place: str) -> None:
    write(videos / place, LABELS)
    prepared = prepare("konvid-1k", videos)
    assert scores(prepared) == {"1": 3.0, "2": 4.0}
    assert "official, 2 rows" in prepared.report.notes[0]


def test_the_nearest_labels_count_and_given_ones_win(videos: Path) -> None:
    write(videos.parent / "KoNViD_1k_mos.csv", OTHER_LABELS)
    write(videos / "KoNViD_1k_mos.csv", LABELS)
    assert scores(prepare("konvid-1k", videos)) == {"1": 3.0, "2": 4.0}
    assert scores(prepare("konvid-1k", videos, videos.parent / "KoNViD_1k_mos.csv")) == {"1": 1.0, "2": 2.0}
    assert scores(prepare("konvid-1k", videos, videos.parent)) == {"1": 1.0, "2": 2.0}


def test_official_labels_come_before_third_party_ones(videos: Path) -> None:
    write(videos / "labels.txt", "1.mp4, -1, -1, 1.5\n2.mp4, -1, -1, 2.5\n")
    write(videos.parent / "KoNViD_1k_mos.csv", LABELS)
    assert scores(prepare("konvid-1k", videos)) == {"1": 3.0, "2": 4.0}


def test_label_files_side_by_side_are_an_error_that_lists_them(videos: Path) -> None:
    for folder in ("a", "b"):
        write(videos / folder / "KoNViD_1k_mos.csv", LABELS)
    with pytest.raises(DatasetError, match=r"a/KoNViD_1k_mos\.csv, .*b/KoNViD_1k_mos\.csv\. Say which one"):
        prepare("konvid-1k", videos)


def test_no_labels_at_all_names_those_that_are_known(videos: Path) -> None:
    with pytest.raises(DatasetError, match=r"No label file of KoNViD-1k .*KoNViD_1k_mos\.csv, .*labels\.txt"):
        prepare("konvid-1k", videos)
    with pytest.raises(DatasetError, match=r"No label file of KoNViD-1k lies in .*videos\. Give it"):
        prepare("konvid-1k", videos, videos)


def test_a_file_of_the_users_own_is_known_by_its_columns(videos: Path) -> None:
    assert scores(prepare("konvid-1k", videos, write(videos / "mine.csv", "Name;M.O.S.\n1.mp4;3,5\n2;4\n"))) == {
        "1": 3.5,
        "2": 4.0,
    }


def test_a_file_with_other_columns_is_refused(videos: Path) -> None:
    with pytest.raises(DatasetError, match=r"mine\.csv is no label file of KoNViD-1k .* the columns a, b\. Known are"):
        prepare("konvid-1k", videos, write(videos / "mine.csv", "a,b\n1,3\n"))


@pytest.mark.parametrize("content", [b"PK\x03\x04rest", b"\xd0\xcf\x11\xe0rest"])
def test_a_spreadsheet_comes_with_advice(videos: Path, content: bytes) -> None:
    (videos / "MOS_for_YouTube_UGC_dataset.xlsx").write_bytes(content)
    with pytest.raises(DatasetError, match=r"\.xlsx is a spreadsheet .* save the sheet with the scores as CSV"):
        prepare("youtube-ugc", videos)


def test_a_spreadsheet_is_passed_over_when_another_file_does(videos: Path, logged: pytest.LogCaptureFixture) -> None:
    (videos / "MOS_for_YouTube_UGC_dataset.xlsx").write_bytes(b"PK\x03\x04rest")
    write(videos / "labels.txt", "1.mp4, -1, -1, 3\n2.mp4, -1, -1, 4\n")
    assert scores(prepare("youtube-ugc", videos)) == {"1": 3.0, "2": 4.0}
    assert "passed over: " in logged.text
    assert ".xlsx is a spreadsheet" in logged.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flickr_id,mos\n", "holds no labels"),
        ("", "is empty"),
        ("flickr_id,mos\n,3\n", "line 2: the video has no name"),
        ("flickr_id,mos\n1,2,3\n", "line 2: 3 cells"),
    ],
)
def test_unusable_labels_are_reported(videos: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        prepare("konvid-1k", videos, write(videos / "KoNViD_1k_mos.csv", text))


def test_a_missing_file_is_named(videos: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.csv cannot be read: No such file"):
        prepare("konvid-1k", videos, videos / "gone.csv")


def test_matlab_columns_of_different_lengths_are_damage(videos: Path) -> None:
    labels = write_mat_5(videos / "KoNViD-1kinfo.mat", scores=[1.0, 2.0, 3.0], video_names=["1", "2"])
    with pytest.raises(DatasetError, match="is damaged: it has 2 names, but 3 scores"):
        prepare("konvid-1k", videos, labels)


def test_matlab_files_of_both_versions_give_the_same_table(tmp_path: Path) -> None:
    names, numbers = ["a.mp4", "é 表 😀.mp4", "c d.mp4"], [1.5, -2.0, 1 / 3]
    old = write_mat_5(tmp_path / "old.mat", scores=numbers, video_names=names)
    new = write_mat_73(tmp_path / "new.mat", {"scores": numbers}, {"video_names": names})
    tables = [read_label_table(path) for path in (old, new)]
    assert [dict(table.columns) for table in tables] == [
        {"scores": ["1.5", "-2.0", repr(1 / 3)], "video_names": names}
    ] * 2
    assert tables[0].where(2) == f"{old}, entry 3"


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, b"x,y\n1,2\n"])
def test_a_damaged_matlab_file_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=r"data\.mat cannot be read as a MATLAB file: \S"):
        read_label_table(tmp_path / "data.mat")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("kill -SEGV $$", "reading it ended with status -11"),
        ("echo nonsense", "reading it ended with status 0"),
        ("exec sleep 60", "took more than"),
    ],
)
def test_a_reader_that_crashes_or_hangs_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    reader = write(tmp_path / "reader", f"#!/bin/sh\n{program}\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    monkeypatch.setattr(label_table, "_SECONDS_FOR_MATLAB", 2.0)
    (tmp_path / "data.mat").touch()
    with pytest.raises(DatasetError, match=message):
        read_label_table(tmp_path / "data.mat")


def test_the_reader_is_given_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = write(tmp_path / "reader", '#!/bin/sh\necho "{\\"columns\\": {\\"n\\": [\\"$OPENBLAS_NUM_THREADS\\"]}}"\n')
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    (tmp_path / "data.mat").touch()
    assert read_label_table(tmp_path / "data.mat").columns == {"n": ["1"]}


def test_the_reader_may_not_take_all_memory() -> None:
    code = "from diffvqa.pipeline.datasets import _mat_columns as m; m._limit_memory(); bytearray(5 * 2**30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("MemoryError")
