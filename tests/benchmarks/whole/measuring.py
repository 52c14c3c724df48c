"""How things are timed: in turns, so that what slows the machine down slows all; programs with all that they start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Usage:
    """What a program took, with all the processes that it started.

    Attributes:
        wall: Seconds of the clock.
        cpu: Seconds of the processor.
        memory: Most bytes that were resident at one time, summed over its processes.
        disk: Most bytes that the watched folder held; 0 where none was watched.
    """

    wall: float
    cpu: float
    memory: float
    disk: float = 0.0

    def after(self, earlier: Usage) -> Usage:
        """Return what this and an earlier program took together, one after the other."""
        return Usage(
            self.wall + earlier.wall,
            self.cpu + earlier.cpu,
            max(self.memory, earlier.memory),
            max(self.disk, earlier.disk),
        )


@dataclass
class _Watch:
    """The peaks of a process tree and of a folder, looked at several times a second."""

    process: psutil.Process
    folder: Path | None
    memory: float = 0.0
    disk: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.done.wait(_LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        try:
            tree = [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            tree = []
        self.memory = max(self.memory, sum(map(_resident, tree)))
        if self.folder is not None:
            self.disk = max(self.disk, bytes_in(self.folder))


def in_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each piece of work says of itself, one after the other in each round."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return found


def wall_of(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def run_python(arguments: Sequence[str], *, watched: Path | None = None) -> Usage:
    """Run this Python with arguments."""
    return run_program([sys.executable, *arguments], watched=watched)


def start_without_transformers() -> None:
    """Have the programs that this process starts from here on do without Transformers, as most users do."""
    first = str(Path(__file__).parents[2] / "child_processes")
    os.environ["PYTHONPATH"] = os.pathsep.join([first, *filter(None, [os.environ.get("PYTHONPATH")])])


def run_diffvqa(arguments: Sequence[str], *, watched: Path | None = None, status: int = 0) -> Usage:
    """Run the ``diffvqa`` of this environment."""
    return run_program([str(Path(sys.executable).with_name("diffvqa")), *arguments], watched=watched, status=status)


def run_program(command: Sequence[str], *, watched: Path | None = None, status: int = 0) -> Usage:
    """Run a program to its end.

    Args:
        command: With its arguments.
        watched: A folder whose bytes are added up meanwhile.
        status: That it should end with.

    Raises:
        RuntimeError: It ended with another; with the end of what it said.
    """
    begun, cpu = time.perf_counter(), _cpu_of_children()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        watch = _Watch(psutil.Process(program.pid), watched)
        watcher = threading.Thread(target=watch.watch)
        watcher.start()
        said, _ = program.communicate()
        wall = time.perf_counter() - begun
        watch.done.set()
        watcher.join()
        watch.look()
    if program.returncode != status:
        raise RuntimeError(f"{' '.join(command)} ended with {program.returncode}:\n{said[-2000:]}")
    return Usage(wall, _cpu_of_children() - cpu, watch.memory, watch.disk)


def peak_resident_size() -> int:
    """Return the bytes that this process held at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would tell of the parent's too
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder; those that vanish meanwhile do not count."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += Path(parent, name).stat().st_size
            except FileNotFoundError:
                continue
    return size


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system
