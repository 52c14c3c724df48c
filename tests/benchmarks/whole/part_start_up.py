"""How soon the command answers where no network is needed, and which imports that takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from .figures import Panel, PartResult, Row, Target, count, seconds
from .measuring import Usage, run_diffvqa, run_python
from .options import Options

_HELP_CPU_S = 0.4
_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| +(\S+)")
_COMMANDS = ("--help", "extract --help", "datasets", "models", "score absent.mp4")
_PACKAGES_SHOWN = 6


def measure(options: Options) -> PartResult:
    """Time the commands and list what they import."""
    # As after an installation: Python keeps what it compiled, somewhere of this run's own.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(options.folder / "compiled")
    commands = _COMMANDS[:1] if options.quick else _COMMANDS
    costs: dict[str, list[Usage]] = {name: [] for name in ("python -c pass", *commands)}
    for number in range(options.rounds + 1):
        for name, spent in costs.items():
            cost = run_python(["-c", "pass"]) if name == "python -c pass" else _run(name, options)
            spent += [cost] if number else []  # the first time compiles
    imports = imported_by("--help")
    answers = Panel(
        title="to the end of the command",
        columns=("command", "wall", "CPU"),
        rows=tuple(
            Row(
                name=name if name.startswith("python") else f"diffvqa {name}",
                cells=(
                    seconds([cost.wall for cost in spent]),
                    seconds([cost.cpu for cost in spent]),
                ),
            )
            for name, spent in costs.items()
        ),
    )
    where = Panel(
        title=f"diffvqa --help: time of its {len(imports)} imports, by package",
        columns=("package", "time", "modules"),
        rows=_by_package(imports),
        note="Each import by itself, as python -X importtime tells it, which slows them down.",
    )
    target = Target(
        claim="diffvqa --help, CPU", measured=seconds([cost.cpu for cost in costs["--help"]]), bound=_HELP_CPU_S
    )
    return PartResult(panels=(answers, where), targets=(target,))


def _run(command: str, options: Options) -> Usage:
    fails = "absent" in command
    words = [*command.split(), *(["--runs", str(options.folder)] if fails else [])]
    return run_diffvqa(words, status=2 if fails else 0)


def imported_by(*arguments: str) -> dict[str, float]:
    """Return module to the seconds that importing it alone took in a ``diffvqa`` with these arguments."""
    program = "import sys; from diffvqa.pipeline._cli import run; sys.exit(run())"
    command = [sys.executable, "-X", "importtime", "-c", program, *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return {module: int(micros) / 1e6 for micros, module in _IMPORT.findall(said)}


def _by_package(imports: dict[str, float]) -> tuple[Row, ...]:
    spent: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for module, took in imports.items():
        top = module.partition(".")[0]
        package = (
            "Python's own" if top.lstrip("_") in sys.stdlib_module_names or top in sys.stdlib_module_names else top
        )
        spent[package] += took  # type: ignore[assignment]
        modules[package] += 1
    return tuple(
        Row(name=name, cells=(seconds([took]).times(1e3, "ms"), count(modules[name])))
        for name, took in spent.most_common(_PACKAGES_SHOWN)
    )
