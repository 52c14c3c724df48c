"""What each package lists is what a user may import: it is there, it is described, and listing it costs nothing."""

from __future__ import annotations

import importlib
import inspect
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("diffvqa.cache", "diffvqa.stages", "diffvqa.pipeline")


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_there_and_described(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    for public in package.__all__:
        thing = getattr(package, public)
        assert thing.__name__ == public
        assert inspect.getdoc(thing), f"{name}.{public} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    text = (ROOT / "docs/python-api.md").read_text()
    missing = [public for public in package.__all__ if f"`{public}`" not in text]
    assert not missing, f"docs/python-api.md does not tell of {', '.join(missing)}"


def test_everything_else_is_private_by_name() -> None:
    for name in PACKAGES:
        folder = ROOT / name.partition(".")[2]
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder)
            is_private = any(part.startswith("_") for part in inside.parts)
            assert is_private, f"{path.relative_to(ROOT)} can be imported but is listed nowhere"


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_package_imports_nothing_heavy(name: str) -> None:
    heavy = "{'torch', 'numpy', 'zarr', 'pyarrow', 'av', 'scipy', 'pydantic', 'typer'}"
    subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; sys.exit(bool({heavy} & set(sys.modules)))"], check=True
    )


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells one after the other, as one program; warnings are errors here as everywhere."""
    notebook = json.loads((ROOT / "docs/notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs are not kept: they grow stale"
    (tmp_path / "notebook.py").write_text("\n\n".join(code), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("notebook.py")
    printed = capsys.readouterr().out
    for told in (
        "12 videos, 12 extracted, 0 failed",
        "median SRCC",
        "resize/frames",
        "weight 0.",
        "None missing",
        "srcc=",
    ):
        assert told in printed, f"{told!r} is not in:\n{printed}"
