"""``diffvqa score`` as a user types it, on real clips and a tiny model."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unreliable_s3 import put, unreliable_server

from diffvqa.cache._reader import FeatureCache
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._config import Runtime
from diffvqa.pipeline._score_inputs import videos_of
from diffvqa.pipeline._score_output import RowFormat
from diffvqa.pipeline._scored_video import ScoredVideo
from diffvqa.pipeline._scorer import Scorer

UNREADABLE = "unreadable"
REASONS = {
    "b0.mp4": "empty",
    "b1.mp4": UNREADABLE,
    "b2.mp4": UNREADABLE,
    "b3.mp4": UNREADABLE,
    "b4.mp4": "missing",
}
# Networks round otherwise in batches of other sizes; everything else leaves a score the same bit for bit.
ROUNDING = 1e-3
# Another number of threads rounds otherwise.
SAME_BITS = ("--set", "runtime.workers=1", "--set", "runtime.threads=1")


@pytest.fixture(scope="module")
def fifty(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 45 clips, and five that cannot be used among them."""
    folder = tmp_path_factory.mktemp("fifty")
    clips = sorted(videos.rglob("q*.mp4"))
    for number in range(45):
        shutil.copy(clips[number % len(clips)], folder / f"v{number:02d}.mp4")
    whole = clips[0].read_bytes()
    (folder / "b0.mp4").touch()
    (folder / "b1.mp4").write_text("no video at all")
    (folder / "b2.mp4").write_bytes(whole[:100] + bytes(len(whole) - 100))
    index = whole.index(b"moov") - 4  # its data cut off: ffmpeg puts the index behind them
    data = whole.index(b"mdat") + 4
    (folder / "b3.mp4").write_bytes(whole[:data] + bytes(index - data) + whole[index:])
    names = [f"v{number:02d}.mp4" for number in range(45)]
    for place, name in zip((0, 9, 20, 31, 49), REASONS, strict=True):
        names.insert(place, name)
    listed = folder / "list.txt"
    listed.write_text("\n".join(str(folder / name) for name in names))
    return listed


@pytest.fixture(scope="module")
def reference(trained: Path, fifty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of the fifty, without interruption."""
    out = tmp_path_factory.mktemp("reference") / "scores.csv"
    assert score(trained, fifty, "--out", out, "--timeline") == 0
    return out


@pytest.fixture
def finished(reference: Path, tmp_path: Path) -> Path:
    """A copy of these scores: there is nothing left to do, so that going on with it takes no time."""
    for file in reference.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / reference.name


def score(runs: Path, *arguments: object) -> int:
    return main(["score", "--runs", str(runs), *SAME_BITS, *map(str, arguments)])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(path: Path, name: str) -> dict[str, str]:
    (row,) = [row for row in read_csv(path) if row["path"].endswith(name)]
    return row


def test_bad_clips_among_good_ones_are_reasons_among_scores(
    trained: Path, fifty: Path, reference: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_csv(reference)
    assert [row["path"] for row in rows] == fifty.read_text().splitlines()
    assert sum(row["status"] == "ok" and float(row["score"]) == float(row["score"]) for row in rows) == 45
    assert {Path(row["path"]).name: row["reason"] for row in rows if row["status"] == "failed"} == REASONS
    assert all(row["detail"] for row in rows if row["status"] == "failed" and row["reason"] != "empty")
    assert score(trained, fifty, "--out", finished, "--timeline", "--resume") == 0
    assert "45 videos scored, 5 failed, 50 of them before" in capsys.readouterr().out
    assert score(trained, fifty, "--out", finished, "--timeline", "--resume", "--strict") == 1
    assert finished.read_bytes() == reference.read_bytes()


def test_killed_at_half_and_gone_on_with_the_file_is_the_same(
    trained: Path, fifty: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    arguments = ["score", str(fifty), "--out", str(out), "--timeline", "--runs", str(trained), *SAME_BITS]
    program = "import sys; from diffvqa.pipeline._cli import main; sys.exit(main(sys.argv[1:]))"
    running = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL)
    try:
        while not out.exists() or out.read_bytes().count(b"\n") < 26:
            assert running.poll() is None
            time.sleep(0.1)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    timeline = out.with_suffix(".timeline.csv")
    with out.open("ab") as scores, timeline.open("ab") as frames:  # as a full disk leaves them
        scores.write(b'"/some/vid')
        frames.write(b"/some/video.mp4,0,0.0,3")
    assert 25 <= len(read_csv(out)) < 50
    assert score(trained, fifty, "--out", out, "--timeline", "--resume") == 0
    assert out.read_bytes() == reference.read_bytes()
    assert timeline.read_bytes() == reference.with_suffix(".timeline.csv").read_bytes()


def test_a_score_is_the_same_alone_in_company_and_twice(
    trained: Path, fifty: Path, reference: Path, tmp_path: Path
) -> None:
    alone = fifty.parent / "v07.mp4"
    for number, arguments in enumerate(((), ("--set", "runtime.workers=2"))):
        out = tmp_path / f"{number}.csv"
        assert score(trained, alone, "--out", out, *arguments) == 0
        assert read_csv(out) == [row_of(reference, "v07.mp4")]
    out = tmp_path / "batches.csv"
    assert score(trained, alone, "--out", out, "--set", "runtime.batch_size=5") == 0
    expected = float(row_of(reference, "v07.mp4")["score"])
    assert float(read_csv(out)[0]["score"]) == pytest.approx(expected, abs=ROUNDING)


def test_a_copy_under_another_name_scores_the_same(reference: Path) -> None:
    """The clips are twelve, each there several times."""
    first, second = (row_of(reference, name) for name in ("v00.mp4", "v12.mp4"))
    assert (first["score"], first["score_std"]) == (second["score"], second["score_std"])
    assert first["score"] != row_of(reference, "v01.mp4")["score"]


def test_the_frames_of_a_video_are_told_with_their_times(reference: Path) -> None:
    rows = read_csv(reference.with_suffix(".timeline.csv"))
    assert len(rows) == 45 * 2
    first, second = (row for row in rows if row["path"].endswith("v07.mp4"))
    assert 0 <= float(first["time"]) < float(second["time"])
    assert int(second["frame"]) > int(first["frame"])
    assert float(first["weight"]) + float(second["weight"]) == pytest.approx(1)


def test_the_python_api_is_three_lines(trained: Path, fifty: Path, reference: Path) -> None:
    from diffvqa.pipeline import Scorer as PublicScorer

    assert PublicScorer is Scorer
    with Scorer(trained / "set/model", Runtime(threads=1)) as scorer:
        scored = scorer(fifty.parent / "v07.mp4")
        assert scored.score == float(row_of(reference, "v07.mp4")["score"])
        assert [frame.frame for frame in scored.timeline] == sorted(frame.frame for frame in scored.timeline)
        failed = scorer(str(fifty.parent / "b0.mp4"))
        assert (failed.score, failed.reason, failed.timeline) == (None, "empty", ())


def test_folders_patterns_and_lists_stand_for_the_same_videos(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sorted((videos / "20").iterdir())
    assert len(expected) == 3
    (tmp_path / "list.txt").write_text("\n".join(["", *map(str, expected), str(expected[0])]))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, expected))))
    monkeypatch.chdir(videos)
    for arguments in (
        [videos / "20"],
        [videos / "2*/q*.mp4"],
        [f"{videos}/**/20/*.mp4"],
        [videos / "2?"],
        expected,
        ["-"],
    ):
        assert videos_of(list(map(str, arguments))) == expected, arguments
    assert videos_of([str(tmp_path / "list.txt"), str(videos / "20")]) == expected
    assert videos_of(["20/*.mp4"]) == [Path("20") / path.name for path in expected]
    (videos / "20" / "[a].mp4").touch()
    assert videos_of(["20/[a].mp4"]) == [Path("20/[a].mp4")], "a name that is there is no pattern"
    (videos / "20" / "[a].mp4").unlink()


@given(
    st.lists(
        st.builds(
            ScoredVideo,
            st.text(st.characters(exclude_characters="\0"), min_size=1).map(Path),
            *[st.floats(allow_nan=False, allow_infinity=False)] * 2,
        )
        | st.builds(ScoredVideo, st.text("a,\n\"'\r", min_size=1).map(Path), st.none(), st.none(), st.just("empty")),
        max_size=4,
    ),
    st.floats(0, 1),
    st.sampled_from(RowFormat),
)
def test_whatever_part_of_a_file_is_left_its_whole_rows_are_gone_on_with(
    videos: list[ScoredVideo], left: float, kind: RowFormat
) -> None:
    rows = [kind.row(video, "MOS (a, b)") for video in videos]
    body = "".join(rows)
    ends = list(itertools.accumulate(map(len, rows), initial=0))
    cut = round(left * len(body))
    whole = max(number for number, end in enumerate(ends) if end <= cut)
    parsed = kind.parse(kind.heading() + body[:cut], Path("scores"))
    assert [video for video, _ in parsed] == videos[:whole]
    assert "".join(row for _, row in parsed) == body[: ends[whole]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere/*.mp4",), "No file matches 'nowhere/*.mp4'"),
        (("a.mp4", "--resume"), "Name it with --out"),
        (("a.mp4", "--format", "csv", "--timeline"), "no place for a timeline"),
        (("a.mp4", "--json", "--format", "csv"), "both want standard output"),
        (("a.mp4", "--out", "scores.xls"), "Use .csv or .jsonl"),
    ],
)
def test_what_makes_no_sense_is_refused(
    trained: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(trained, *arguments) == 2
    assert message in capsys.readouterr().err


def test_rows_for_another_program_are_all_there_is_on_standard_output(
    trained: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (videos / "20/q30.mp4", videos / "empty.mp4")
    assert score(trained, *given, "--format", "jsonl", "--timeline") == 0
    shown = capsys.readouterr()
    good, bad = map(json.loads, shown.out.splitlines())
    assert (good["status"], len(good["timeline"])) == ("ok", 2)
    assert (bad["status"], bad["score"], bad["reason"], bad["timeline"]) == ("failed", None, "empty", [])
    assert "1 videos scored, 1 failed" in shown.err
    assert score(trained, *given, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(rows[0]["score"]) == good["score"]
    assert rows[1]["reason"] == "empty"


def test_people_read_a_line_for_each_video_and_a_summary(
    trained: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(trained, videos / "20", videos / "empty.mp4", "--timeline") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("weight" in line for line in lines) == 3 * 2
    assert any(line.split()[:2] == ["failed", "empty"] for line in lines)
    assert "failed: 1 empty" in lines
    assert any(line.startswith("lowest: ") for line in lines)
    assert score(trained, videos / "20/q10.mp4", "--quiet") == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 + 1
    assert not shown.err


def test_the_summary_can_be_read_by_a_program(
    trained: Path, fifty: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(trained, fifty, "--out", finished, "--resume", "--timeline", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    scores = [float(row["score"]) for row in read_csv(finished) if row["score"]]
    assert (summary["scored"], summary["failed"]) == (45, 5)
    assert summary["failures"] == {"empty": 1, "unreadable": 3, "missing": 1}
    assert summary["lowest"] == min(scores)
    assert summary["mean"] == pytest.approx(sum(scores) / 45)


def test_a_minimum_is_an_exit_status(trained: Path, fifty: Path, finished: Path) -> None:
    lowest = min(float(row["score"]) for row in read_csv(finished) if row["score"])
    options = (fifty, "--out", finished, "--resume", "--timeline", "--min-score")
    assert score(trained, *options, repr(lowest)) == 0
    assert score(trained, *options, repr(lowest + 0.001)) == 3
    assert score(trained, *options, repr(lowest), "--strict") == 1


def test_features_are_kept_and_used_again(
    trained: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, cache = (videos / "20", videos / "empty.mp4"), tmp_path / "features"
    assert score(trained, *given, "--cache", cache, "--out", tmp_path / "first.csv", "--timeline") == 0
    assert FeatureCache(cache).ids() == tuple(str(path) for path in sorted((videos / "20").iterdir()))
    assert score(trained, *given, "--out", tmp_path / "plain.csv", "--timeline") == 0

    def refuse(*_: Any) -> Any:
        raise AssertionError("it was decoded again")

    monkeypatch.setattr("diffvqa.stages._decode_pool.DecodePool._decode_one", refuse)
    assert score(trained, *given, "--cache", cache, "--out", tmp_path / "second.csv", "--timeline") == 0
    for suffix in (".csv", ".timeline.csv"):
        texts = {(tmp_path / f"{name}{suffix}").read_text() for name in ("first", "plain", "second")}
        assert len(texts) == 1
    monkeypatch.undo()
    capsys.readouterr()
    # Its crops lie elsewhere than those of a data set, whose videos are seeded by their ids.
    assert score(trained, *given, "--cache", trained / "set/features") == 2
    assert "seeded_by" in capsys.readouterr().err


def test_features_are_kept_of_videos_that_were_scored_before(trained: Path, videos: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "scores.csv", tmp_path / "features"
    assert score(trained, videos / "20/q10.mp4", "--out", out) == 0
    assert score(trained, videos / "20", "--out", out, "--resume", "--cache", cache) == 0
    assert len(read_csv(out)) == len(FeatureCache(cache).ids()) == 3


def test_a_file_is_gone_on_with_only_if_it_is_of_the_same_kind(
    trained: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    assert score(trained, videos / "20", "--out", out, "--resume") == 0, "nothing is there yet"
    assert score(trained, videos / "20", "--out", out, "--resume", "--timeline") == 2
    assert "'timeline' was False, and is True now" in capsys.readouterr().err
    out.write_text("a,b\n1,2\n")
    assert score(trained, videos / "20", "--out", out, "--resume") == 2
    assert "its columns are a, b" in capsys.readouterr().err
    (tmp_path / "scores.csv.provenance.json").unlink()
    assert score(trained, videos / "20", "--out", out, "--resume") == 2
    assert "cannot be gone on with" in capsys.readouterr().err


def test_names_that_are_no_unicode_keep_their_bytes(trained: Path, videos: Path, tmp_path: Path) -> None:
    strange, out = Path(os.fsdecode(os.fsencode(tmp_path) + b'/a\xff,\n"b".mp4')), tmp_path / "scores.csv"
    shutil.copy(videos / "20/q30.mp4", strange)
    assert score(trained, strange, "--out", out) == 0
    first = out.read_bytes()
    assert score(trained, strange, tmp_path / "gone.mp4", "--out", out, "--resume") == 0
    assert out.read_bytes().startswith(first)
    rows = list(csv.reader(io.StringIO(os.fsdecode(out.read_bytes()), newline="")))
    assert [os.fsencode(row[0]) for row in rows[1:]] == [os.fsencode(strange), os.fsencode(tmp_path / "gone.mp4")]
    assert [row[4] for row in rows[1:]] == ["ok", "failed"]


def test_an_interruption_says_how_to_go_on(
    trained: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffvqa.pipeline._scorer.extract_units", interrupted)
    assert score(trained, videos / "20", "--out", tmp_path / "scores.csv") == 130
    assert capsys.readouterr().err.strip().endswith("diffvqa: interrupted. Add --resume to go on.")


def test_a_fault_while_scoring_is_not_blamed_on_the_output(
    trained: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_files(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("diffvqa.pipeline._scorer.extract_units", out_of_files)
    assert score(trained, videos / "20", "--out", tmp_path / "scores.csv") == 1
    assert "scores.csv" not in capsys.readouterr().err


def test_scoring_refuses_a_diffusion_model_that_changed(
    trained: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "set/model"
    shutil.copytree(trained / "set/model", model)
    stored = json.loads((model / "model.json").read_text())
    stored["extract"]["fingerprint"]["model.diffusion"] = "0123"
    (model / "model.json").write_text(json.dumps(stored))
    assert main(["score", str(videos / "20"), "--runs", str(tmp_path)]) == 2
    assert "model.diffusion is 0123 there" in capsys.readouterr().err


def test_what_made_the_scores_lies_beside_them(reference: Path) -> None:
    provenance = json.loads(reference.with_name("scores.csv.provenance.json").read_text())
    assert provenance["recipe"]["extract"]["frames"] == 2
    assert {"model_sha256", "features", "software", "label"} <= provenance.keys()


def test_scores_of_videos_in_a_bucket_are_those_of_the_files(trained: Path, videos: Path, tmp_path: Path) -> None:
    """Given by the URL of their folder, by their own, and by a list; with a cache, and gone on with."""
    folder, at_url = tmp_path / "clips", "s3://bucket/clips"
    (folder / "a").mkdir(parents=True)
    shutil.copy(videos / "0/q10.mp4", folder / "a/b.mp4")
    shutil.copy(videos / "20/q45.mp4", folder / "c.mp4")
    (folder / "d.mp4").write_text("no video at all")

    def rows(name: str, *arguments: str) -> dict[str, tuple[float | None, str]]:
        out = tmp_path / f"{name}.jsonl"
        assert main(["score", *arguments, "--runs", str(trained), *SAME_BITS, "--out", str(out)]) == 0
        lines = map(json.loads, out.read_text().splitlines())
        places = (f"{folder}/", f"{at_url}/")
        return {
            line["path"].removeprefix(places[0]).removeprefix(places[1]): (line["score"], line["reason"])
            for line in lines
        }

    with unreliable_server() as server:
        for path in folder.rglob("*.mp4"):
            put("bucket", f"clips/{path.relative_to(folder).as_posix()}", path.read_bytes())
        here = rows("here", str(folder), f"{folder}/gone.mp4")
        cached = ("--cache", str(tmp_path / "features"))
        assert rows("there", at_url, f"{at_url}/gone.mp4", *cached) == here
        assert [reason for _, reason in here.values()] == ["", "", "unreadable", "missing"]
        (tmp_path / "list.txt").write_text(f"{at_url}/c.mp4\n")
        assert rows("listed", str(tmp_path / "list.txt"), *cached) == {"c.mp4": here["c.mp4"]}
        server.broken = "clips/"
        done = rows("there", f"{at_url}/c.mp4", "--resume")
        assert done == here
