"""The recipe ``csv``: labels find their videos, and mistakes are pointed out."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Label, ManifestRow, MatchReport
from diffvqa.pipeline.datasets import ColumnNames, PreparedDataset, PrepareRequest, Progress, find_recipe

DEFAULT_COLUMNS = ColumnNames()


def prepare(folder: Path, labels: str | bytes, *videos: str, columns: ColumnNames = DEFAULT_COLUMNS) -> PreparedDataset:
    directory = folder / "videos"
    for video in videos:
        directory.joinpath(video).parent.mkdir(parents=True, exist_ok=True)
        directory.joinpath(video).touch()
    label_file = folder / "labels.csv"
    label_file.write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    request = PrepareRequest("mine", folder / "runs", directory, label_file, columns)
    return find_recipe("csv").prepare(request, lambda _: None)


def scores(prepared: PreparedDataset) -> dict[str, float | None]:
    return {row.video_id: row.score for row in prepared.manifest.rows}


def test_a_label_finds_its_video_by_path_name_or_stem(tmp_path: Path) -> None:
    labels = "video,score\nsub/a.mp4,1\nb.mp4,2\nc,3.25\nsub/d,4\n./e.mp4,5\nsub\\f.mp4,6\n10.5,7\n"
    videos = ("sub/a.mp4", "sub/b.mp4", "deep/er/c.mkv", "sub/d.avi", "e.mp4", "sub/f.mp4", "10.5.mp4")
    prepared = prepare(tmp_path, labels, *videos)
    assert scores(prepared) == dict(zip(videos, [1, 2, 3.25, 4, 5, 6, 7], strict=True))
    assert prepared.report == MatchReport(matched=7)
    assert all(row.path == tmp_path / "videos" / row.video_id for row in prepared.manifest.rows)
    assert all(row.group == row.video_id for row in prepared.manifest.rows)


def test_a_whole_path_comes_before_a_file_name(tmp_path: Path) -> None:
    assert scores(prepare(tmp_path, "video,score\na.mp4,1\nsub/a.mp4,2\n", "a.mp4", "sub/a.mp4")) == {
        "a.mp4": 1.0,
        "sub/a.mp4": 2.0,
    }


@pytest.mark.parametrize("name", ["a.mp4", "a"])
def test_a_name_that_fits_several_videos_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"line 2: '{name}' fits several videos: one/a\.mp4, two/a\.mp4"):
        prepare(tmp_path, f"video,score\n{name},1\n", "one/a.mp4", "two/a.mp4")


def test_what_does_not_match_is_reported_in_both_directions(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, "video,score\na.mp4,1\ngone/x.mp4,2\n../y.mp4,3\n", "a.mp4", "b.mp4", "c.mp4")
    assert prepared.report == MatchReport(1, ("gone/x.mp4", "../y.mp4"), ("b.mp4", "c.mp4"))
    videos = tmp_path / "videos"
    assert prepared.manifest.rows == (
        ManifestRow("a.mp4", str(videos / "a.mp4"), 1.0, "a.mp4"),
        ManifestRow("gone/x.mp4", str(videos / "gone" / "x.mp4"), 2.0, "gone/x.mp4"),
        ManifestRow("../y.mp4", str(videos / "y.mp4"), 3.0, "../y.mp4"),
    )


def test_no_match_at_all_is_an_error(tmp_path: Path) -> None:
    message = r"None of the 2 labels .* x, y \(.*line 2\); videos such as a\.mp4\. Check --videos"
    with pytest.raises(DatasetError, match=message):
        prepare(tmp_path, "video,score\nx,1\ny,2\n", "a.mp4")


@pytest.mark.parametrize("again", ["a.mp4", "a"])
def test_a_video_labelled_twice_is_reported(tmp_path: Path, again: str) -> None:
    with pytest.raises(DatasetError, match=r"line 4: 'a\.mp4' is labelled 2\.0, but 1\.0 at .*line 2"):
        prepare(tmp_path, f"video,score\na.mp4,1\nb.mp4,1\n{again},2\n", "a.mp4", "b.mp4")


def test_the_same_label_twice_counts_once_and_is_reported(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, "video,score\na.mp4,1\nb.mp4,2\na,1\n", "a.mp4", "b.mp4")
    assert scores(prepared) == {"a.mp4": 1.0, "b.mp4": 2.0}
    assert prepared.report == MatchReport(2, duplicates=("a",))


def test_scores_of_which_lower_is_better_are_turned_round_and_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video,dmos\na,10\nb,70.5\n")
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).touch()
    request = PrepareRequest(
        "mine",
        tmp_path,
        tmp_path / "videos",
        tmp_path / "labels.csv",
        ColumnNames(score="dmos"),
        lower_is_better=True,
    )
    prepared = find_recipe("csv").prepare(request, lambda _: None)
    assert scores(prepared) == {"a.mp4": -10.0, "b.mp4": -70.5}
    assert prepared.manifest.label == Label("dmos", "turned round, higher is better")


def test_an_official_split_comes_along(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, "video,score,split\na,1,train\nb,2,test\nc,3,\n", "a.mp4", "b.mp4", "c.mp4")
    assert prepared.manifest.official_splits() == {"official": {"a.mp4": "train", "b.mp4": "test"}}


def test_a_split_that_is_none_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 3, column 'split': 'training' names no part"):
        prepare(tmp_path, "video,score,split\na,1,train\nb,2,training\n", "a.mp4", "b.mp4")


def test_groups_and_columns_by_other_names(tmp_path: Path) -> None:
    labels = "name,dmos,scene\na.mp4,1,park\nb.mp4,2,\n"
    prepared = prepare(tmp_path, labels, "a.mp4", "b.mp4", columns=ColumnNames("name", "dmos", "scene"))
    assert [row.group for row in prepared.manifest.rows] == ["park", "b.mp4"]
    assert prepared.manifest.label == Label("dmos")


def test_scores_by_their_usual_names_are_mos(tmp_path: Path) -> None:
    assert prepare(tmp_path, "video,score,group\na,1,g\n", "a.mp4").manifest.label == Label("MOS")
    columns = ColumnNames(score="MOS")
    assert prepare(tmp_path, "video,MOS\na,1\n", "a.mp4", columns=columns).manifest.label == Label("MOS")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_common_kinds_of_csv_are_read(tmp_path: Path, delimiter: str, mark: str, line_end: str) -> None:
    rows = [("video", "score", "note"), ('"a.mp4"', "1.5", '"so, so; fine"'), ("", "", ""), ("é 表.mp4", "2", "")]
    text = mark + "".join(delimiter.join(row) + line_end for row in rows)
    assert scores(prepare(tmp_path, text, "a.mp4", "é 表.mp4")) == {"a.mp4": 1.5, "é 表.mp4": 2.0}


@pytest.mark.parametrize(
    ("columns", "option"),
    [
        (ColumnNames(video="file"), "--video-column"),
        (ColumnNames(score="mos"), "--score-column"),
        (ColumnNames(group="scene"), "--group-column"),
        (ColumnNames(split="part"), "--split-column"),
    ],
)
def test_a_missing_column_names_those_there_are_and_the_option(
    tmp_path: Path, columns: ColumnNames, option: str
) -> None:
    with pytest.raises(DatasetError, match=rf"it has: video, score, extra\. .*{option}"):
        prepare(tmp_path, "video,score,extra\na,1,2\n", "a.mp4", columns=columns)


@pytest.mark.parametrize("score", ["", "good", "nan", "inf", "-inf", "1 2"])
def test_a_score_that_is_no_number_is_reported(tmp_path: Path, score: str) -> None:
    with pytest.raises(DatasetError, match=rf"labels\.csv, line 3, column 'score': '{score}' is no number"):
        prepare(tmp_path, f"video,score\na,1\nb,{score}\n", "a.mp4", "b.mp4")


def test_a_decimal_comma_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'3,5' is no number.*decimal point"):
        prepare(tmp_path, "video;score\na;3,5\n", "a.mp4")


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("", "is empty"),
        ("video,score\n", "holds no labels"),
        ("video,score\n ,1\n", "line 2, column 'video': the name is empty"),
        ("video,score\na,1,2\n", "line 2: 3 cells, but the header has 2"),
        (b"video,score\n\xe9,1\n", "not UTF-8"),
    ],
)
def test_an_unusable_file_is_reported(tmp_path: Path, labels: str | bytes, complaint: str) -> None:
    with pytest.raises(DatasetError, match=complaint):
        prepare(tmp_path, labels, "a.mp4")


def test_missing_files_and_options_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    recipe = find_recipe("csv")
    with pytest.raises(DatasetError, match="--labels"):
        recipe.prepare(PrepareRequest("mine", tmp_path, videos=tmp_path), lambda _: None)
    with pytest.raises(DatasetError, match=r"gone\.csv cannot be read: No such file"):
        recipe.prepare(PrepareRequest("mine", tmp_path, tmp_path, tmp_path / "gone.csv"), lambda _: None)


def test_progress_counts_the_labels(tmp_path: Path) -> None:
    prepare(tmp_path, "video,score\na,1\nb,2\n", "a.mp4", "b.mp4")
    steps: list[Progress] = []
    request = PrepareRequest("mine", tmp_path, tmp_path / "videos", tmp_path / "labels.csv")
    find_recipe("csv").prepare(request, steps.append)
    assert steps == [Progress(1, 2, "a.mp4"), Progress(2, 2, "b.mp4")]


@given(
    videos=st.sets(st.text("abc", min_size=1, max_size=3), max_size=6),
    labels=st.sets(st.text("abc", min_size=1, max_size=3), max_size=6),
)
def test_every_label_and_every_video_is_accounted_for(videos: set[str], labels: set[str]) -> None:
    videos, labels = videos | {"both"}, labels | {"both"}
    with tempfile.TemporaryDirectory() as folder:
        text = "video,score\n" + "".join(f"{name},{len(name)}\n" for name in sorted(labels))
        prepared = prepare(Path(folder), text, *(f"{name}.mp4" for name in videos))
    assert prepared.report.matched == len(videos & labels)
    assert set(prepared.report.labels_without_video) == labels - videos
    assert {Path(name).stem for name in prepared.report.videos_without_label} == videos - labels
    assert len(prepared.manifest.rows) == len(labels)
