"""``diffvqa doctor``: it tells what works by trying it, what does not, and what would mend it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from diffvqa.pipeline._cli import main

ROOT = Path(__file__).resolve().parents[2]
PROBLEM_WITH_FOLDER = "cannot be written to"


def findings(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json", *arguments]) == status
    told = json.loads(capsys.readouterr().out)
    by_name = {finding["name"]: finding for finding in told["findings"]}
    assert told["problems"] == sum(finding["health"] == "problem" for finding in by_name.values())
    return by_name


def test_what_works_is_told_and_what_is_absent_has_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, "--runs", str(tmp_path / "not/yet"), "--device", "cpu")
    for name in ("diffvqa", "torch", "device", "model nano", "decoder pyav", "selective scan", "disk", "outputs"):
        assert found[name]["health"] == "ok", found[name]
    assert "decodes a clip" in found["decoder pyav"]["found"]
    assert not (tmp_path / "not").exists(), "nothing is left behind"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for finding in found.values():
        assert bool(finding["remedy"]) == (finding["health"] != "ok")
        assert set(re.findall(r"diffvqa\[(\w+)\]", finding["remedy"])) <= extras.keys()


def test_problems_are_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    def broken(*_: object, **__: object) -> None:
        raise ImportError("libavcodec.so: cannot open shared object file\nand more")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffvqa.stages._decoding.decode_video", broken)
    monkeypatch.setattr("diffvqa.pipeline._doctor.tempfile.TemporaryFile", full)
    monkeypatch.setattr("diffvqa.stages._diffusion.model_folder.load_model_folder", broken)
    found = findings(capsys, "--device", "cuda:9", status=1)
    assert found["decoder pyav"]["health"] == "problem"
    assert found["decoder decord"]["health"] == "absent"
    assert found["model nano"]["found"] == "ImportError: libavcodec.so: cannot open shared object file"
    assert found["device"]["health"] == "problem"
    assert "No space left" in found["outputs"]["found"]
    assert main(["doctor", "--device", "cuda:9"]) == 1
    shown = capsys.readouterr().out
    assert "problem(s)" in shown
    assert "Use --device cpu" in shown
