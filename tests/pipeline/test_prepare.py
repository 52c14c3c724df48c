"""``diffvqa prepare`` and ``diffvqa datasets`` as a user runs them, and through make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from label_material import KONVID, touch, write

from diffvqa.pipeline._cli import main
from diffvqa.pipeline._manifest import Label, read_manifest
from diffvqa.pipeline.datasets import RECIPES

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def konvid(tmp_path: Path) -> Path:
    videos = touch(tmp_path / "KoNViD_1k_videos", *(f"{name}.mp4" for name in KONVID), "other.mp4")
    rows = "".join(f"{name},{score}\n" for name, score in KONVID.items())
    write(tmp_path / "KoNViD_1k_mos.csv", f"flickr_id,mos\n{rows}1,3\n2,-1\n3339962845,4.64\n")
    return videos


def test_a_published_data_set_needs_no_more_than_its_folder(
    konvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "konvid-1k", "--videos", str(konvid), "--runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "KoNViD_1k_mos.csv (official, 6 rows)" in shown
    assert "5 labels, a number that no known release of KoNViD-1k has; known are: 1200 (every release)" in shown
    assert "konvid-1k: 5 videos in 5 content groups; 4 with a score, MOS from 1 to 5" in shown
    assert (
        "matched 3, labels without a video 2, videos without a label 1, labelled twice 1, without a usable score 1"
    ) in shown
    assert "next: diffvqa extract konvid-1k" in shown
    manifest = read_manifest(tmp_path / "runs" / "konvid-1k")
    assert {row.video_id: row.score for row in manifest.rows} == {**KONVID, "1": 3.0, "2": None}
    assert manifest.label == Label("MOS", "", 1, 5)
    report = json.loads((tmp_path / "runs" / "konvid-1k" / "dataset.json").read_text())["report"]
    assert report["labels_without_video"] == ["1", "2"]
    assert report["without_score"] == ["2"]


def test_what_does_not_fit_is_warned_of(konvid: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "konvid-1k", "--videos", str(konvid), "--runs", str(tmp_path / "runs")]) == 0
    warnings = capfd.readouterr().err
    assert "2 label(s) without a video: 1, 2; they stay in the manifest" in warnings
    assert "1 video(s) without a label, left out: other.mp4" in warnings
    assert "1 video(s) labelled twice with one score, kept once: 3339962845" in warnings
    assert "1 score(s) missing or off the scale, kept as unlabelled: 2" in warnings


def test_another_name_and_an_official_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = touch(tmp_path / "videos", "0000.mp4", "0001.mp4")
    write(tmp_path / "train_labels.txt", "0001.mp4, 1, 2, 3\n")
    write(tmp_path / "val_labels.txt", "0000.mp4, 1, 2, 4\n")
    runs = tmp_path / "runs"
    assert main(["prepare", "maxwell", "--name", "mine", "--videos", str(videos), "--runs", str(runs)]) == 0
    assert "split official: 1 test, 1 train" in capsys.readouterr().out
    assert (runs / "mine" / "manifest.csv").read_text().splitlines()[1].endswith("0001.mp4,3.0,0001,train")


def test_lower_is_better_in_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = touch(tmp_path / "videos", "a.mp4", "b.mp4")
    labels = write(tmp_path / "dmos.csv", "video,dmos,part\na,10,train\nb,70,test\n")
    arguments = ["--score-column", "dmos", "--split-column", "part", "--lower-is-better", "--runs", str(tmp_path)]
    assert main(["prepare", "csv", "--name", "x", "--videos", str(videos), "--labels", str(labels), *arguments]) == 0
    assert "2 with a score, dmos (turned round, higher is better)" in capsys.readouterr().out
    assert [(row.score, row.split) for row in read_manifest(tmp_path / "x").rows] == [(-10, "train"), (-70, "test")]


def test_datasets_lists_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    shown = capsys.readouterr().out
    for name in RECIPES:
        assert name in shown
    assert "KoNViD_1k_mos.csv" in shown
    assert "1380 / 1323 / 1147 / 1036" in shown


def test_datasets_shows_one_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "live-qualcomm"]) == 0
    shown = capsys.readouterr().out
    for part in ("qualcommSubjectiveData.unBiasedMOS", "MDTVSFA", "higher is better", "208", "54 scenes"):
        assert part in shown
    assert main(["datasets", "folder"]) == 0


def test_datasets_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(RECIPES)
    lsvq = listed["lsvq-test"]
    assert (lsvq["scale"], lsvq["direction"], lsvq["counts"]["7186"]) == ([0, 100], "higher is better", "FAST-VQA")
    assert [file["names"][0] for file in lsvq["label_files"]] == [
        "labels_train_test.csv",
        "LSVQ_whole_test.csv",
        "labels_test.txt",
    ]
    assert set(listed["csv"]) == {"name", "summary"}


def test_an_unknown_data_set_suggests_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets", "konvid-1"]) == 2
    assert "Did you mean 'konvid-1k'?" in capfd.readouterr().err


def made(tmp_path: Path, *variables: str) -> list[str]:
    """Return the commands that make would run in a fresh checkout."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    command = ["make", "--no-print-directory", *variables, "DIFFVQA=@echo diffvqa", "STAMP="]
    # A make that runs the tests hands its own variables on, such as ARGS: they are left out.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


def test_make_extract_prepares_a_published_data_set_first(tmp_path: Path) -> None:
    assert made(tmp_path, "extract", "DATASET=konvid-1k", "VIDEOS=/where/they are", "ARGS=--crops 3") == [
        "diffvqa prepare konvid-1k --name konvid-1k --videos /where/they are",
        "diffvqa extract konvid-1k --crops 3",
    ]
    write(tmp_path / "runs" / "konvid-1k" / "manifest.csv", "")
    assert made(tmp_path, "extract", "DATASET=konvid-1k", "VIDEOS=/where") == ["diffvqa extract konvid-1k"]


def test_make_prepare_takes_labels_and_a_recipe(tmp_path: Path) -> None:
    assert made(tmp_path, "prepare", "DATASET=mine", "RECIPE=csv", "VIDEOS=v", "LABELS=l.csv") == [
        "diffvqa prepare csv --name mine --videos v --labels l.csv"
    ]


def test_nothing_is_warned_of_when_all_fits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    videos = touch(tmp_path / "videos", "A001.mp4")
    write(tmp_path / "LIVE_VQC_metadata.csv", "File,MOS\nA001.mp4,50\n")
    assert main(["prepare", "live-vqc", "--videos", str(videos), "--runs", str(tmp_path / "runs")]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert "prepare live-vqc 1/1" in line
