"""The verbs as a user types them, on real clips and a tiny model: from a label file to scores."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._shards import ShardEntry, ShardWriter, StagedShard
from diffvqa.cache._writer import CacheWriter
from diffvqa.pipeline import _console as console
from diffvqa.pipeline import datasets
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._config import Settings
from diffvqa.pipeline._verbs import VERBS, load_verb
from diffvqa.stages._view_extractor import ViewExtractor


def run(verb: str, name: str, runs: Path, settings_file: Path, *more: str) -> int:
    return main([verb, name, "--runs", str(runs), "--config", str(settings_file), *more])


def test_a_process_says_all_it_has_to_and_looks_for_no_garbage_among_what_it_imported() -> None:
    program = (
        "import gc, sys; from diffvqa.pipeline import _cli; status = _cli.run();"
        "print(gc.isenabled(), gc.get_threshold()[0] > 5000, gc.get_freeze_count() > 5000); sys.exit(status)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run([*command, "datasets"], check=True, capture_output=True, text=True)
    assert "konvid-1k" in done.stdout
    assert done.stdout.endswith("True True True\n")
    failed = subprocess.run([*command, "extract", "nosuch"], check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("diffvqa: ")


def test_bad_videos_are_listed_with_reasons_and_the_rest_is_done(
    trained: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("extract", "set", trained, settings_file) == 0
    shown = capsys.readouterr().out
    for name, reason in {"empty.mp4": "empty", "text.mp4": "unreadable", "gone.mp4": "missing"}.items():
        (line,) = [line for line in shown.splitlines() if name in line.split()]
        assert reason in line.split()
    assert "moov atom not found" in shown
    assert "0 videos extracted, 12 were done, 3 failed" in shown
    assert run("extract", "set", trained, settings_file, "--strict") == 1


def test_the_model_goes_on_while_a_shard_is_written(
    trained: Path, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, submit = ShardWriter.stage, ViewExtractor.submit
    computing, staged = set[int](), list[int]()

    def compute(*arguments: Any) -> Any:
        computing.add(threading.get_ident())
        return submit(*arguments)

    def write_after_the_next_is_begun(self: ShardWriter, entries: Sequence[ShardEntry], number: int) -> StagedShard:
        deadline = time.monotonic() + 60
        while not staged and computing == {threading.get_ident()}:
            assert time.monotonic() < deadline, "the second shard waits until the first is written"
            time.sleep(0.01)
        staged.append(number)
        return stage(self, entries, number)

    monkeypatch.setattr(ViewExtractor, "submit", compute)
    monkeypatch.setattr(ShardWriter, "stage", write_after_the_next_is_begun)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.csv").write_bytes((trained / "set/manifest.csv").read_bytes())
    assert run("extract", "set", tmp_path, settings_file) == 0
    assert sorted(staged) == [0, 1, 2]
    assert digests(tmp_path) == digests(trained)


def test_extracting_twice_does_the_work_once(trained: Path, settings_file: Path) -> None:
    shards = trained / "set/features/shards"
    before = {path: path.stat().st_mtime_ns for path in shards.rglob("*")}
    assert run("extract", "set", trained, settings_file) == 0
    assert {path: path.stat().st_mtime_ns for path in shards.rglob("*")} == before
    assert len(list(shards.glob("*.json"))) == 3


def test_another_recipe_is_refused_and_overwrite_is_offered(
    trained: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("extract", "set", trained, settings_file, "--frames", "3") == 2
    error = capsys.readouterr().err
    assert "frames is 2 there, 3 was asked for" in error
    assert "--overwrite" in error


def test_a_killed_extraction_goes_on_where_it_was_and_ends_with_the_same_features(
    trained: Path, settings_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.csv").write_bytes((trained / "set/manifest.csv").read_bytes())
    program = """
import os, signal, sys
from diffvqa.cache import _shards as shards
from diffvqa.pipeline import (_console as console, datasets)
from diffvqa.pipeline._cli import main
from diffvqa.pipeline._config import Settings
from diffvqa.stages._view_extractor import ViewExtractor
publish = shards.publish_mark
def publish_one_then_die(*arguments):
    publish(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    shards.publish_mark = publish_one_then_die
    main(sys.argv[1:])
"""
    arguments = ["extract", "set", "--runs", str(tmp_path), "--config", str(settings_file)]
    died = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True)
    assert died.returncode == -9
    assert len(list((tmp_path / "set/features/shards").glob("*.json"))) == 1
    assert main(arguments) == 0
    assert digests(tmp_path) == digests(trained)


def test_of_two_extractions_at_once_the_second_is_refused_in_one_line(
    trained: Path,
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second is begun when the first has published a shard; that they begin at once is tested with the cache."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.csv").write_bytes((trained / "set/manifest.csv").read_bytes())
    arguments = ["extract", "set", "--runs", str(tmp_path), "--config", str(settings_file)]
    publish, endings = CacheWriter.publish_staged, list[int]()

    def publish_and_begin_another(writer: CacheWriter, staged: StagedShard) -> None:
        publish(writer, staged)
        endings.append(main(arguments))

    monkeypatch.setattr(CacheWriter, "publish_staged", publish_and_begin_another)
    assert main(arguments) == 0
    assert endings == [2, 2, 2]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffvqa: ")]
    assert len(lines) == 3
    assert all("is being written by another process" in line for line in lines)
    assert digests(tmp_path) == digests(trained)
    ids = [video_id for mark in (tmp_path / "set/features/shards").glob("*.json") for video_id in rows_of(mark)]
    assert len(ids) == len(set(ids)) == 15


def test_what_changed_came_and_went_is_reported_and_redone(
    trained: Path, settings_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [row["video_id"] for row in read_csv(trained / "set/manifest.csv")]
    videos = {row["video_id"]: Path(row["path"]) for row in read_csv(trained / "set/manifest.csv")}
    usable = [name for name in names if name not in ("empty.mp4", "text.mp4", "gone.mp4")]
    folder = tmp_path / "set"
    folder.mkdir()
    changed, vanished, new = usable[:3]

    def write(*listed: str) -> None:
        for name in listed:
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(videos[name].read_bytes())
        (folder / "manifest.csv").write_text("video_id,path\n" + "".join(f"{name},{name}\n" for name in listed))

    write(changed, vanished)
    assert run("extract", "set", tmp_path, settings_file) == 0
    before = digests(tmp_path)
    write(changed, new)
    (folder / changed).write_bytes(videos[usable[3]].read_bytes())
    capfd.readouterr()
    assert run("extract", "set", tmp_path, settings_file) == 0
    shown = capfd.readouterr()
    assert f"1 video(s) ({changed}): the file changed since" in shown.err
    assert f"1 video(s) ({vanished}): in " in shown.err
    assert f"1 video(s) ({new}): new in the manifest" in shown.err
    assert "2 videos extracted, 0 were done" in shown.out
    cache = FeatureCache(folder / "features")
    assert set(cache.ids()) == {changed, vanished, new}
    assert cache[changed].row.digests != before[changed]
    assert cache[vanished].row.digests == before[vanished]
    assert cache[new].row.source.sha256 == hashlib.sha256((folder / new).read_bytes()).hexdigest()
    (folder / changed).unlink()
    assert run("extract", "set", tmp_path, settings_file) == 0
    assert f"1 video(s) ({changed}): the file is not there any more; features are kept" in capfd.readouterr().err


def test_features_go_to_a_url_and_are_trained_on_from_there(trained: Path, settings_file: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.csv").write_bytes((trained / "set/manifest.csv").read_bytes())
    url = f"memory://{tmp_path.name}/features"
    assert run("extract", "set", tmp_path, settings_file, "--cache", url) == 0
    assert not (tmp_path / "set/features").exists()
    assert main(["cache", "verify", url]) == 0
    assert run("train", "set", tmp_path, settings_file, "--cache", url) == 0
    stored = {video_id: FeatureCache(url)[video_id].row.digests for video_id in FeatureCache(url).ids()}
    assert stored == {video_id: found for video_id, found in digests(trained).items() if found}


def test_plain_zarr_reads_the_features(trained: Path) -> None:
    shard = min((trained / "set/features/shards").glob("*.zarr"))
    group = zarr.open_group(shard, mode="r")
    latent = group["crop/latent"]
    assert isinstance(latent, zarr.Array)
    assert latent.shape[1:] == (2, 2, 48, 8, 8)


def test_training_leaves_a_table_of_every_split_and_the_median(
    trained: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {path: path.read_bytes() for path in (trained / "set/model").glob("*.safetensors")}
    assert run("train", "set", trained, settings_file) == 0
    shown = capsys.readouterr()
    lines = [line.replace("│", " ").split() for line in shown.out.splitlines()]
    assert any(line[:1] == ["split-0"] for line in lines)
    assert any(line[:1] == ["split-1"] for line in lines)
    assert any(line[:1] == ["median"] for line in lines)
    assert "3 labelled video(s) have no features" in shown.err
    assert {path: path.read_bytes() for path in (trained / "set/model").glob("*.safetensors")} == weights
    assert len(weights) == 2


def test_an_export_holds_every_usable_video(trained: Path, settings_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.h5"
    assert run("export", "set", trained, settings_file, "--format", "h5", "--out", str(out)) == 0
    with h5py.File(out) as file:
        assert len(file["video_id"]) == 12
        assert not np.isnan(file["score"][:]).any()
        assert file["features/resize/frames"].shape == (24, 32, 32, 3)
        assert file["score"].attrs["label"] == "MOS"
        assert json.loads(file.attrs["provenance"])["data_set"] == "set"


def test_the_summaries_can_be_read_by_a_program_or_left_out(
    trained: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("extract", "set", trained, settings_file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["extracted"], told["done_before"], told["failed"]) == (0, 12, 3)
    assert told["failures"] == {"empty.mp4": "empty", "text.mp4": "unreadable", "gone.mp4": "missing"}
    assert run("train", "set", trained, settings_file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["medians"]["set"] == json.loads((trained / "set/model/metrics.json").read_text())["set"]["median"]
    assert run("export", "set", trained, settings_file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 12
    capsys.readouterr()
    assert run("extract", "set", trained, settings_file, "--quiet") == 0
    shown = capsys.readouterr()
    assert not shown.out
    assert not shown.err
    assert run("export", "set", trained, settings_file, "--quiet") == 0
    shown = capsys.readouterr()
    assert not shown.out
    assert "3 video(s) of the manifest have no features" in shown.err, "a warning is not left out"


def test_a_clean_run_is_free_of_the_words_of_libraries(trained: Path, settings_file: Path, tmp_path: Path) -> None:
    """In a process of its own, where nothing turns warnings into errors or keeps what is written below Python."""
    program = """
import sys
from diffvqa.pipeline._cli import main
sys.exit(main(["extract", "--overwrite", *sys.argv[1:]]) or main(["train", *sys.argv[1:]]))
"""
    shutil.copytree(trained / "set", tmp_path / "set", ignore=shutil.ignore_patterns("model"))
    arguments = ["set", "--runs", str(tmp_path), "--config", str(settings_file)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    ours = re.compile(r"\d\d:\d\d:\d\d \S")
    assert [line for line in done.stderr.splitlines() if not ours.match(line)] == []
    assert "Warning" not in done.stdout
    assert {"12 videos extracted", "split-0"} <= set(re.findall(r"\d+ videos extracted|split-0", done.stdout))


def test_no_colour_is_used_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for wanted in ("", "1"):
        monkeypatch.setenv("NO_COLOR", wanted)
        console.output_console().print("x", style="red")
        assert ("\x1b[31m" in capsys.readouterr().out) == (not wanted)


def test_what_an_earlier_run_did_does_not_count_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = 1000.0, list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(console.logger, "info", lines.append)
    with console.progress("fit", 1000) as report:
        report.go_on(900, 1000)
        now += 20.0
        report.set(940, 1000)
        now += 30.0
        report.set(1000, 1000)
    assert lines == ["fit 940/1000, 2.0/s, 30.0 s left", "fit 1000/1000, 2.0/s"]


def test_nothing_that_works_is_exit_status_1(tmp_path: Path, settings_file: Path) -> None:
    (tmp_path / "bad/videos").mkdir(parents=True)
    (tmp_path / "bad/videos/a.mp4").touch()
    assert main(["prepare", "folder", "--name", "bad", "--videos", str(tmp_path / "bad/videos"), "--runs",
                 str(tmp_path)]) == 0  # fmt: skip
    assert run("extract", "bad", tmp_path, settings_file) == 1
    assert run("train", "bad", tmp_path, settings_file) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "nosuch"], "There is no data set 'nosuch'"),
        (["extract", "set", "--set", "extract.framez=3"], "Did you mean 'frames'?"),
        (["extract", "set", "--set", "extract.frames=0"], "greater than or equal to 1"),
        (["extract", "set", "--model", "nosuch"], "There is no model 'nosuch'"),
        (["extract", "set", "--set", "extract.view_size=33"], "Use a multiple of 16"),
        (["extract", "set", "--frobnicate"], "No such option"),
        (["extract", "set", "--device", "cuda:7"], "no device 'cuda:7'"),
        (["extract"], "Missing argument"),
        (["train", "nosuch"], "There is no data set 'nosuch'"),
        (["export", "set", "--format", "xyz"], "'xyz' is not"),
        (["prepare", "nosuch"], "no data-set recipe 'nosuch'"),
        (["prepare", "folder", "--name", "x"], "--videos"),
        (["prepare", "folder"], "--name"),
        (["score", "a.mp4", "--model", "nosuch"], "no trained model 'nosuch'"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_status_2(
    trained: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [] if arguments == ["frobnicate"] else ["--runs", str(trained)]
    assert main([*arguments, *runs]) == 2
    shown = capfd.readouterr()
    (line,) = shown.err.strip().splitlines()
    assert line.startswith("diffvqa: ")
    assert message in line
    assert "Traceback" not in shown.out + shown.err


def test_a_missing_column_names_the_columns_there_are(
    tmp_path: Path, videos: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "csv", "--name", "x", "--videos", str(videos), "--labels", str(labels)]
    assert main([*arguments, "--runs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "MOS" in line
    assert "--video-column" in line


def test_an_output_that_cannot_be_written_is_one_clear_line(
    trained: Path, videos: Path, tmp_path: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    blocked = str(tmp_path / "file/x")
    assert run("export", "set", trained, settings_file, "--out", blocked) == 2
    assert run("extract", "set", trained, settings_file, "--cache", blocked) == 2
    assert main(["score", str(videos / "20"), "--out", blocked, "--runs", str(trained)]) == 2
    assert main(["prepare", "folder", "--name", "y", "--videos", str(videos), "--runs", blocked]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diffvqa: ")]
    assert len(lines) == 4
    assert all("file/x" in line for line in lines)


def test_debug_shows_the_traceback(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "nosuch", "--runs", str(trained), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_exit_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "find_recipe", interrupted)
    assert main(["prepare", "demo", "--runs", str(tmp_path)]) == 130
    assert capsys.readouterr().err.strip() == "diffvqa: interrupted. Run the same command again to go on."


def test_a_fault_of_the_program_is_one_line_unless_debugging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(datasets, "find_recipe", faulty)
    assert main(["prepare", "demo", "--runs", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("diffvqa: internal error: ZeroDivisionError: by zero. Run it again with --debug")
    assert main(["prepare", "demo", "--runs", str(tmp_path), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_show_config_shows_what_would_be_used_and_stops(
    tmp_path: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("extract", "not-even-prepared", tmp_path, settings_file, "--crops", "9", "--show-config") == 0
    shown = capsys.readouterr().out
    assert "crops = 9" in shown
    assert "view_size = 32" in shown
    assert "[train]" in shown
    assert "[runtime]" in shown


@pytest.mark.parametrize(
    ("verb", "option", "key"),
    [
        ("extract", "--model", "extract.model"),
        ("extract", "--frames", "extract.frames"),
        ("extract", "--crops", "extract.crops"),
        ("extract", "--device", "runtime.device"),
        ("extract", "--runs", "runtime.runs"),
        ("train", "--splits", "train.splits"),
        ("train", "--epochs", "train.epochs"),
        ("train", "--seed", "train.seed"),
    ],
)
def test_help_names_the_real_defaults(verb: str, option: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    described = words[words.index(f" {option} ") :]
    default = described.partition("(default: ")[2].partition(")")[0]
    table, _, setting = key.partition(".")
    assert default == str(getattr(getattr(Settings(), table), setting))


def test_settings_are_stored_with_every_output(trained: Path) -> None:
    for folder in ("set", "set/model"):
        assert "[extract]" in (trained / folder / "settings.toml").read_text(), folder
    assert FeatureCache(trained / "set/features").header.recipe["frames"] == 2


IMPORTED_BY = """
import json, sys
from diffvqa.pipeline._cli import main
for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""
# Those that may import least come first: all are run by one process, and what one has imported stays.
NEEDS_NO_MODEL: list[tuple[list[str], int, set[str]]] = [
    (["--help"], 0, {"numpy", "pydantic", "av", *(f"diffvqa.pipeline.{verb.module}" for verb in VERBS.values())}),
    (["--version"], 0, {"torch", "numpy"}),
    (["extract", "--help"], 0, {"torch", "numpy"}),
    (["doctor", "--help"], 0, {"torch", "numpy"}),
    (["datasets"], 0, {"torch", "numpy"}),
    (["models"], 0, {"torch", "diffusers", "zarr"}),
    (["metrics", "table.csv"], 0, {"torch", "diffusers", "zarr"}),
    (["extract", "absent"], 2, {"torch", "diffusers", "zarr"}),
    (["score", "absent.mp4"], 2, {"torch", "diffusers", "zarr"}),
]


def test_what_needs_no_model_imports_none(tmp_path: Path) -> None:
    """Importing torch and diffusers takes seconds: whoever mistyped a name is told at once."""
    (tmp_path / "table.csv").write_text("true,predicted\n" + "".join(f"{n},{n + n % 3}\n" for n in range(9)))
    commands = json.dumps([arguments for arguments, *_ in NEEDS_NO_MODEL])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_BY, commands], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    for (arguments, expected, heavy), (status, modules) in zip(NEEDS_NO_MODEL, told, strict=True):
        assert status == expected, arguments
        assert not heavy & set(modules), arguments


def test_help_sums_up_a_verb_as_its_own_help_does() -> None:
    """The summaries stand apart from the verbs, so that help need not import them all."""
    told = {name: load_verb(name).help or "" for name in VERBS}
    assert {name: text.partition("\n")[0] for name, text in told.items()} == {
        name: verb.summary for name, verb in VERBS.items()
    }
    assert {name: load_verb(name).name for name in VERBS} == {name: name for name in VERBS}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(mark: Path) -> list[str]:
    return [row["video_id"] for row in json.loads(mark.read_text())["rows"]]


def digests(runs: Path) -> dict[str, dict[str, str]]:
    marks = (runs / "set/features/shards").glob("*.json")
    return {row["video_id"]: row["digests"] for mark in marks for row in json.loads(mark.read_text())["rows"]}
