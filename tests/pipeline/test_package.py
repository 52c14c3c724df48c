"""What a user installs: the wheel, and nothing but the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would check out, so that no leftover of an earlier build gets in."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_an_installed_wheel_adds_one_name_and_brings_its_data(wheel: Path, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([*install, str(tmp_path), str(wheel)], check=True, capture_output=True)
    top_level = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".dist-info")}
    assert top_level == {"bin", "diffvqa"}
    package_folder = tmp_path / "diffvqa"
    assert {path.name for path in package_folder.iterdir()} == {"cache", "pipeline", "stages"}
    installed = {path.relative_to(package_folder).as_posix() for path in package_folder.rglob("*") if path.is_file()}
    for package in ("cache", "pipeline", "stages"):
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert modules <= installed
        assert f"{package}/py.typed" in installed
    assert {f"pipeline/_report/templates/report.{suffix}" for suffix in ("html", "css", "js")} <= installed
    nano = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/models").rglob("*") if path.is_file()}
    assert nano
    assert nano <= installed


def test_the_installed_wheel_runs_and_finds_its_model(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # Users have no Transformers, which diffusers would spend seconds on importing.
    program = (
        "import sys; sys.modules['transformers'] = None;"
        "from diffvqa.stages._diffusion import folder_files, model_folder; from diffvqa.pipeline._cli import main;"
        "folder = folder_files.locate_model_folder('nano'); model_folder.load_model_folder(folder); print(folder)"
    )
    # The editable installation's hooks stay out (-S); its dependencies stay in.
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), site_packages])},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_imports_run_downwards_only() -> None:
    below = {"cache": ("stages", "pipeline"), "stages": ("pipeline",)}
    for package, above in below.items():
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for name in above:
                assert f"diffvqa.{name}" not in text.replace('files("diffvqa.stages")', ""), path
