"""The manifest: what is written comes back, and mistakes in one written by hand are pointed out."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.cache._errors import OutputError
from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow, MatchReport, read_manifest, write_manifest

# Line breaks of every kind, delimiters, quotation marks and foreign scripts; no lone surrogates.
TEXT = st.text(st.one_of(st.sampled_from("\",;\n\r\t \\'#é表😀"), st.characters(exclude_categories=["Cs"])), min_size=1)
IDS = TEXT.filter(lambda text: bool(text.strip()))
FILE_NAMES = st.text(st.sampled_from("ab\",;\n\r\t \\'#é表😀."), min_size=1).filter(
    lambda name: name.strip() and name not in {".", ".."}
)
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SPLITS = st.sampled_from(["", "train", "validation", "test", "one=test", "one=train; two = test", " test "])


@st.composite
def manifests(draw: st.DrawFn, folder: Path) -> Manifest:
    rows = []
    for video_id in draw(st.lists(IDS, unique=True, max_size=5)):
        parent = draw(st.sampled_from([folder, folder / "videos", Path("/data/set 1")]))
        rows.append(
            ManifestRow(video_id, str(parent / draw(FILE_NAMES)), draw(SCORES), group=draw(TEXT), split=draw(SPLITS))
        )
    return Manifest(draw(TEXT), tuple(rows), Label(draw(TEXT), draw(TEXT), draw(SCORES), draw(SCORES)))


@given(data=st.data())
def test_what_is_written_comes_back(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = data.draw(manifests(Path(folder)))
        write_manifest(Path(folder), manifest)
        assert read_manifest(Path(folder)) == manifest


def test_a_prepared_folder_can_be_moved(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "b.mp4"
    rows = (
        ManifestRow("a", str(tmp_path / "before" / "videos" / "a.mp4"), 1.5, "a"),
        ManifestRow("b", str(outside), None, "b"),
    )
    write_manifest(tmp_path / "before", Manifest("set", rows))
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = read_manifest(tmp_path / "after")
    assert [row.path for row in moved.rows] == [tmp_path / "after" / "videos" / "a.mp4", outside]
    assert "\na,videos/a.mp4,1.5,a,\r\n" in (tmp_path / "after" / "manifest.csv").read_bytes().decode()


def test_paths_below_a_relative_folder_are_stored_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(Path("runs"), Manifest("set", (ManifestRow("a", str(Path("runs/a.mp4")), 1.0, "a"),)))
    assert read_manifest(Path("runs")).rows[0].path == Path("runs/a.mp4")
    assert read_manifest(tmp_path / "runs").rows[0].path == tmp_path / "runs" / "a.mp4"


def test_the_description_says_what_the_scores_are(tmp_path: Path) -> None:
    label = Label("VMAF", "full-reference stand-in for MOS, not human opinion", 0.0, 100.0)
    rows = (ManifestRow("a", str(tmp_path / "a"), 1.0, "scene"), ManifestRow("b", str(tmp_path / "b"), None, "scene"))
    report = MatchReport(1, ("c",), ("b",))
    write_manifest(tmp_path, Manifest("set", rows, label), recipe="csv", report=report)
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "format": 1,
        "name": "set",
        "label": {
            "name": "VMAF",
            "note": "full-reference stand-in for MOS, not human opinion",
            "lowest": 0.0,
            "highest": 100.0,
        },
        "recipe": "csv",
        "counts": {"videos": 2, "labelled": 1, "groups": 1},
        "report": {
            "matched": 1,
            "labels_without_video": ["c"],
            "videos_without_label": ["b"],
            "duplicates": [],
            "without_score": [],
            "notes": [],
        },
    }
    assert str(label) == "VMAF (full-reference stand-in for MOS, not human opinion)"
    assert str(Label()) == "MOS"


def write_by_hand(folder: Path, text: str) -> Path:
    folder.joinpath("manifest.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_manifest_written_by_hand_needs_only_ids_and_paths(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path, "\ufeffvideo_id, path\na,a.mp4\n\nb,/data/b.mp4\n")
    assert read_manifest(folder) == Manifest(
        tmp_path.name,
        (ManifestRow("a", str(tmp_path / "a.mp4"), None, "a"), ManifestRow("b", str(Path("/data/b.mp4")), None, "b")),
        Label("MOS", ""),
    )


def test_cells_of_score_and_group_may_be_empty(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path, "path,score,video_id,group,extra\na.mp4,,a,,x\nb.mp4, 3.5 ,b,scene,y\n")
    assert [(row.video_id, row.score, row.group) for row in read_manifest(folder).rows] == [
        ("a", None, "a"),
        ("b", 3.5, "scene"),
    ]


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("", ["is empty"]),
        ("video_id,score\na,1\n", ["line 1", "column 'path' is missing", "video_id, score"]),
        ("video_id,path,path\n", ["line 1", "column 'path' is there twice"]),
        ("video_id,path\na,a\nb,b\na,c\n", ["line 4", "'video_id'", "'a' is already on line 2"]),
        ("video_id,path\na,a\n ,b\n", ["line 3", "'video_id'", "empty"]),
        ("video_id,path\na,\n", ["line 2", "'path'", "empty"]),
        ("video_id,path,score\na,a,good\n", ["line 2", "'score'", "'good' is no number"]),
        ("video_id,path,score\na,a,nan\n", ["line 2", "'score'", "'nan' is no number"]),
        ("video_id,path,score\na,a,1,5\n", ["line 2", "4 cells, but the header has 3"]),
        ("video_id,path,score\na,a\n", ["line 2", "2 cells, but the header has 3"]),
        ("video_id,path,split\na,a,train\nb,b,dev\n", ["line 3", "'split'", "'dev' names no part", "train, valid"]),
        ("video_id,path,split\na,a,x=test;x=train\n", ["line 2", "'split'", "names no part"]),
    ],
)
def test_mistakes_are_pointed_out(tmp_path: Path, text: str, complaints: list[str]) -> None:
    with pytest.raises(DatasetError) as caught:
        read_manifest(write_by_hand(tmp_path, text))
    for complaint in [str(tmp_path / "manifest.csv"), *complaints]:
        assert complaint in str(caught.value)


def test_official_splits_are_read_by_name(tmp_path: Path) -> None:
    text = "video_id,path,split\na,a,train\nb,b,hard=test;easy=train\nc,c,\nd,d, test \n"
    assert read_manifest(write_by_hand(tmp_path, text)).official_splits() == {
        "official": {"a": "train", "d": "test"},
        "hard": {"b": "test"},
        "easy": {"b": "train"},
    }


def test_a_manifest_without_official_splits_says_so(tmp_path: Path) -> None:
    assert read_manifest(write_by_hand(tmp_path, "video_id,path\na,a\n")).official_splits() == {}


def test_a_label_knows_its_scale() -> None:
    assert [Label("MOS", "", 1, 5).covers(score) for score in (0.99, 1, 5, 5.01)] == [False, True, True, False]
    assert Label().covers(-1e9)


def test_a_missing_manifest_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Run `diffvqa prepare` first"):
        read_manifest(tmp_path)


def test_a_file_in_another_encoding_is_reported(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("video_id,path\né,é".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8 at byte 14"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "name": "a", "label": 3}'])
def test_a_damaged_description_is_reported(tmp_path: Path, text: str) -> None:
    write_by_hand(tmp_path, "video_id,path\n").joinpath("dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
        read_manifest(tmp_path)


def test_a_description_of_a_newer_format_is_reported(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "video_id,path\n").joinpath("dataset.json").write_text('{"format": 2}')
    with pytest.raises(DatasetError, match="newer version"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        (ManifestRow("a", str(Path("1")), 1.0, "a"), ManifestRow("a", str(Path("2")), 1.0, "a")),
        (ManifestRow(" ", str(Path("1")), 1.0, "a"),),
        (ManifestRow("a", str(Path("1")), math.nan, "a"),),
        (ManifestRow("a", str(Path("1")), math.inf, "a"),),
    ],
)
def test_a_manifest_that_could_not_be_read_back_cannot_be_made(rows: tuple[ManifestRow, ...]) -> None:
    with pytest.raises(DatasetError):
        Manifest("set", rows)


def test_a_file_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    manifest = Manifest("set", (ManifestRow("\udcff.mp4", str(tmp_path / "\udcff.mp4"), None, "a"),))
    with pytest.raises(OutputError, match="Rename the files"):
        write_manifest(tmp_path, manifest)
