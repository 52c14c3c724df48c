"""Every command in the README and in docs/ does what it says: run in a sandbox, or at least understood.

A command that fails here: correct it, or put what it needs into the sandbox. Where that cannot be had in a test, give
it a line in ``UNDERSTOOD_ALONE`` with the reason.
"""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from documented_commands import ROOT, Documented, documented_commands
from stage_two_material import make_material, write_dataset

from diffvqa.pipeline._cli import app, main
from diffvqa.pipeline._verbs import VERBS, load_verb

NEEDS_DATA = "needs the data set; its recipe is tested on a folder of the same layout"
NEEDS_STORAGE = "needs an account; tested against an S3 server"
# What is not run, and why; matched against the beginning of the command.
UNDERSTOOD_ALONE = {
    "diffvqa demo": "takes minutes; .ci/run does it as 'make demo'",
    "diffvqa prepare demo": "takes a minute; part of 'make demo'",
    "diffvqa prepare konvid-1k": NEEDS_DATA,
    "diffvqa prepare live-vqc": NEEDS_DATA,
    "diffvqa prepare lsvq": NEEDS_DATA,
    "diffvqa prepare youtube-ugc": NEEDS_DATA,
    "diffvqa extract lsvq --model": "needs a model of several GB; tested on a narrow one of the same layout",
    "diffvqa train live-vqc --ablate": "as above",
    "diffvqa extract lsvq --engine ray": "needs a cluster; tested on one of five nodes",
    "diffvqa extract lsvq --runs /shared/runs --engine ray": "as above",
    "diffvqa train lsvq --engine ray": "needs a cluster; what is sent to one is tested without",
    "diffvqa sweep konvid-1k --engine ray": "as above",
    "diffvqa evaluate --model lsvq --on konvid-1k --on live-vqc --engine ray": "as above",
    "diffvqa plan lsvq --runs /shared/runs": "needs a cluster; tested on one of five nodes",
    "diffvqa cache verify lsvq --runs /shared/runs": "as above",
    "diffvqa plan konvid-1k": NEEDS_DATA,
    "diffvqa extract demo --cache s3://": NEEDS_STORAGE,
    "diffvqa cache verify s3://": NEEDS_STORAGE,
    "diffvqa cache merge one two --out s3://": NEEDS_STORAGE,
    "diffvqa train demo --ablate": "trains eight regressors; tested on a smaller set",
    "diffvqa sweep demo --trials": "trains dozens of regressors; tested on a smaller set",
    "diffvqa adapt": "needs a base model; tested on a tiny one",
    "diffvqa align": "needs photographs and an hour; tested on a few for moments",
    "diffvqa pretrain": "needs photographs and hours; tested on a few for moments",
    "diffvqa reconstruct": "needs an adapted model; tested on a tiny one",
    "diffvqa import-controller": "needs a checkpoint of several GB; tested on one of the same layout",
    "diffvqa models models": "needs a folder of models; tested on a small one",
}
EXIT_STATUS = {"--min-score": (0, 3), "--strict": (0, 1)}
SCORES = ("demo", "konvid-1k", "live-vqc", "youtube-ugc", "lsvq")
BLOCKS = [command for command in documented_commands() if command.is_block]
DIFFVQA = [command for command in BLOCKS if command.text.startswith("diffvqa ") and not command.is_pattern]
# Each once, however many pages have it.
RUN = list(
    {
        command.text: command
        for command in DIFFVQA
        if not any(command.text.startswith(start) for start in UNDERSTOOD_ALONE)
    }.values()
)


@pytest.fixture(scope="module")
def sandbox(videos: Path, settings_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which a reader has followed the pages so far, with everything as small as it gets."""
    folder = tmp_path_factory.mktemp("reader")
    before = Path.cwd()
    os.chdir(folder)
    small = _small_settings(settings_file)
    (folder / "small.toml").write_text(small)
    _write_demo(folder, videos)
    for name in SCORES[1:]:
        write_dataset(folder / "runs", name, make_material(12, frames=2))
        options = ["--splits", "1", "--epochs", "1", "--set", "train.tcab_patch=4", "--quiet"]
        assert main(["train", name, "--config", "small.toml", *options]) == 0
    for name in ("clip.mp4", "release.mp4", "clips/a.mp4", "more/b/c.mkv", "uploads/d/e.mp4", "build/f.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "20/q30.mp4", folder / name)
    (folder / "list.txt").write_text("clip.mp4\nrelease.mp4\n")
    rows = "\n".join(f"{n},{n + n % 3},{n},{n + n % 3}" for n in range(20))
    (folder / "predictions.csv").write_text(f"true,predicted,MOS,y\n{rows}\n")
    _write_own(folder, videos)
    (folder / "runs/demo/sweep").mkdir()
    (folder / "runs/demo/sweep/best.toml").write_text(small)
    assert main(["evaluate", "--model", "live-vqc", "--on", "lsvq", "--json", "grid.json", "--quiet"]) == 0
    yield folder
    os.chdir(before)


def _small_settings(settings_file: Path) -> str:
    text = settings_file.read_text()
    assert tomllib.loads(text)["train"]["splits"] == 2
    return text.replace("epochs = 2", "epochs = 1").replace("splits = 2", "splits = 1")


def _write_demo(folder: Path, videos: Path) -> None:
    there = folder / "runs/demo/videos"
    rows = ["video_id,path,score,group"]
    for number, path in enumerate(sorted(videos.rglob("q*.mp4"))):
        content = "bikes" if number < 3 else f"content-{number // 3}"
        name = f"{content}/{('pristine', 'h264-crf28', 'h264-crf36')[number % 3]}.mp4"
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there / name)
        rows.append(f"{name},videos/{name},{90 - 20 * (number % 3) - number},{content}")
    (folder / "runs/demo/manifest.csv").write_text("\n".join(rows) + "\n")
    for verb in ("extract", "train"):
        assert main([verb, "demo", "--config", "small.toml", "--quiet"]) == 0


def _write_own(folder: Path, videos: Path) -> None:
    there = folder / "home/videos"
    there.mkdir(parents=True)
    for number, path in enumerate(sorted(videos.rglob("q*.mp4"))[:6]):
        shutil.copy(path, there / f"{number}.mp4")
    _write_labels(folder)
    own = ["--videos", str(there), "--labels", "scores.csv"]
    assert main(["prepare", "csv", "--name", "mine", *own, "--quiet"]) == 0
    assert main(["prepare", "folder", "--name", "unlabelled", "--videos", str(there), "--quiet"]) == 0
    for verb, name in (("extract", "mine"), ("train", "mine"), ("extract", "unlabelled")):
        assert main([verb, name, "--config", "small.toml", "--quiet"]) == 0


def _write_labels(folder: Path) -> None:
    """Write label files, which commands of the pages may write over."""
    for name, video, score in (("mos.csv", "file", "MOS"), ("scores.csv", "video", "score")):
        rows = "".join(f"{number}.mp4,{number}\n" for number in range(6))
        (folder / name).write_text(f"{video},{score}\n{rows}")


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_of_the_pages_runs(
    command: Documented, sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(sandbox / "home"))
    given = command.standard_input
    _write_labels(sandbox)
    monkeypatch.setattr("sys.stdin", io.StringIO((sandbox / given).read_text() if given else ""))
    words = [str(sandbox / "home" / word[2:]) if word.startswith("~/") else word for word in command.words]
    words = [word.replace("/data/mine", str(sandbox / "home/videos")) for word in words]
    named = {"score", "extract", "train", "evaluate", "report", "export"} & set(words[1:2])
    if named and "--config" not in words:
        words += ["--config", "small.toml"]
    if words[1] == "score" and "--model" not in words:
        words += ["--model", "demo"]
    if words[1] == "train" and "demo" not in words:
        words += ["--set", "train.tcab_patch=4", "--set", "train.pretrain_epochs=1"]
    if "--epochs" in words:
        words += ["--epochs", "1"]  # the last one given counts
    if words[1] == "metrics":
        words += ["--resamples", "20"]
    expected = next((statuses for option, statuses in EXIT_STATUS.items() if option in words), (0,))
    status = main(words[1:])
    shown = capsys.readouterr()
    assert status in expected, f"{command}\nended with {status}: {shown.err.strip()[-600:]}\nSee {Path(__file__).name}."


@pytest.mark.parametrize("command", documented_commands(), ids=str)
def test_a_command_of_the_pages_names_what_there_is(command: Documented) -> None:
    """Its verb, its options, its target: also in patterns, and where it is not run."""
    if command.text.startswith("make "):
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
        named = [word for word in command.words[1:] if "=" not in word]
        assert set(named) <= targets, f"{command}: the Makefile has no such target"
        known = set(re.findall(r"\$\(([A-Z]+)\)", (ROOT / "Makefile").read_text()))
        given = {word.partition("=")[0] for word in command.words[1:] if "=" in word}
        assert given <= known, f"{command}: the Makefile has no such variable"
        return
    verb, options = _verb_and_options(command.text)
    unknown = [
        word
        for word in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", command.text.partition(" ")[2])
        if word not in options
    ]
    assert not unknown, f"{command}: '{verb}' has no option {', '.join(unknown)}"


def _verb_and_options(text: str) -> tuple[str, set[str]]:
    """Return the verb of a command and the options it has."""
    found = typer.main.get_command(app)
    options = _options(found)
    name = "diffvqa"
    for word in text.split()[1:]:
        commands = _verbs() if name == "diffvqa" else getattr(found, "commands", None)
        if commands is None or word.startswith("-"):
            break
        if word == "VERB" or word not in commands:
            assert word.isupper() or "…" in word, f"{text}: there is no verb '{word}'"
            return name, options | {option for each in commands.values() for option in _options(each)}
        found, name = commands[word], word
        options = _options(found)
    return name, options


@functools.cache
def _verbs() -> dict[str, Any]:
    return {name: load_verb(name) for name in VERBS}


def _options(command: object) -> set[str]:
    parameters = getattr(command, "params", [])
    return {"--help", "-h", *(option for each in parameters for option in (*each.opts, *each.secondary_opts))}


@pytest.mark.parametrize("command", [one for one in BLOCKS if one.text.startswith("make ")], ids=str)
def test_a_target_of_the_pages_calls_commands_that_there_are(command: Documented) -> None:
    """What make would call, without calling it."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *command.words[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    for line in done.stdout.splitlines():
        _, found, call = line.partition("bin/diffvqa ")
        if found:
            verb, options = _verb_and_options(f"diffvqa {call}")
            assert {word for word in call.split() if word.startswith("--")} <= options, f"{command}: {verb}: {line}"


def test_the_links_of_the_pages_lead_somewhere() -> None:
    for page in {command.page for command in documented_commands()} | {"README.md"}:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
