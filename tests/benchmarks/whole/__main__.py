"""Measure every claim of speed in one run, print the ratios, and write docs/benchmarks.md and docs/benchmarks.json.

    python -m tests.benchmarks.whole                      everything, 20 to 26 minutes on two quiet cores
    python -m tests.benchmarks.whole --quick --out DIR    the same in small: its figures say nothing
    python -m tests.benchmarks.whole --only start_up      some parts alone; nothing is written unless --out is given

Exit status 1: a target is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from diffvqa.cache._atomic import atomic_write_text

from .figures import Part, PartResult, WholeRun
from .machine import describe_machine
from .options import Options
from .pages import write_pages
from .parts import TITLES, measure
from .show import tables_of

_DOCS = Path("docs")


def main() -> int:
    """Run all parts, or the one that another process was started for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="in small, once, in some minutes; needs --out")
    parser.add_argument("--only", nargs="+", choices=TITLES, metavar="PART", help=f"of {', '.join(TITLES)}")
    parser.add_argument("--out", type=Path, help="folder of both files (default: docs, if everything is measured)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary folder by default")
    parser.add_argument("--keep", type=Path, help="folder of each part's figures; those there are not measured again")
    parser.add_argument("--part", choices=TITLES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        sys.stdout.write(measure(arguments.part, Options(arguments.folder, arguments.quick)).model_dump_json())
        return 0
    if arguments.quick and not (arguments.out or arguments.only):
        parser.error("a quick run's figures say nothing: give a folder for them with --out")
    names, out = arguments.only or list(TITLES), arguments.out or (None if arguments.only else _DOCS)
    run = run_parts(names, quick=arguments.quick, folder=arguments.folder, keep=arguments.keep)
    if out is not None:
        write_pages(run, out)
    return int(not run.quick and not all(target.is_met for part in run.parts for target in part.result.targets))


def run_parts(names: Sequence[str], *, quick: bool, folder: Path | None, keep: Path | None = None) -> WholeRun:
    """Run parts, each in a process of its own, and print each one's tables when it is done."""
    console = Console()
    parts: list[Part] = []
    for part in _run_each(names, quick=quick, folder=folder, keep=keep):
        parts.append(part)
        console.rule(f"{part.title} ({part.seconds:.0f} s)")
        console.print(*tables_of(part))
    return WholeRun(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        quick=quick,
        rounds=Options(Path(), quick).rounds,
        seconds=sum(part.seconds for part in parts),
        machine=describe_machine(),
        parts=tuple(parts),
    )


def _run_each(names: Sequence[str], *, quick: bool, folder: Path | None, keep: Path | None) -> Iterator[Part]:
    """Yield the parts in order: one at a time, so that they do not disturb each other, unless that does not matter."""
    with ThreadPoolExecutor(2 if quick else 1) as pool:
        yield from pool.map(lambda name: _run_or_load(name, quick=quick, folder=folder, keep=keep), names)


def _run_or_load(name: str, *, quick: bool, folder: Path | None, keep: Path | None) -> Part:
    if keep is None:
        return run_part(name, quick=quick, folder=folder)
    kept = keep / f"{name}{'-quick' * quick}.json"
    if kept.exists():
        return Part.model_validate_json(kept.read_text())
    part = run_part(name, quick=quick, folder=folder)
    atomic_write_text(kept, part.model_dump_json())
    return part


def run_part(name: str, *, quick: bool, folder: Path | None) -> Part:
    """Run one part in a process of its own.

    Raises:
        RuntimeError: It failed; with what it said.
    """
    begun = time.perf_counter()
    # As extraction itself sets it, here for those it is compared with too.
    environment = {**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    with TemporaryDirectory(prefix="diffvqa-bench-", dir=folder) as own:
        command = [sys.executable, "-m", str(__package__), "--part", name, "--folder", own, *(["--quick"] * quick)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    result = PartResult.model_validate_json(done.stdout.splitlines()[-1])
    return Part(name=name, title=TITLES[name], seconds=time.perf_counter() - begun, result=result)


if __name__ == "__main__":
    sys.exit(main())
