"""Time and memory of one Mamba mixer, forwards and backwards, on a CPU: ours, mambapy's and transformers' fallback.

Every case runs in a process of its own, from the same weights, on the same number of threads. The time is the least of
several repeats, after a first run on two tokens that compiles or loads what there is to; the memory is how far the
process grows above what it held before.

transformers' fallback takes from half a minute to many minutes at these sizes. Unless ``--full`` is given it runs on
one sequence of the batch, at the whole length, and the batch is taken to cost as many times more as the growth from one
sequence to two at a quarter of the length says; the table shows that growth, which should be near 2.

    python -m tests.benchmarks.scan [--full | --quick | --shape BATCH LENGTH WIDTH] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

_STATE = 16
SHAPES = ((8, 512, 192), (4, 2048, 192), (8, 1024, 256))
QUICK_SHAPES = ((4, 64, 64),)
_MIB = 2**20


@dataclass(frozen=True)
class Measurement:
    """What one mixer takes for one forward and backward pass.

    Attributes:
        seconds: The least of all repeats.
        bytes: By which the process grows.
    """

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Comparison:
    """The three mixers at one shape.

    Attributes:
        ours: Measured.
        mambapy: Measured.
        transformers: Measured, or from one sequence of the batch.
        growth: Of transformers' time from one sequence to two, if it is not measured on the batch.
    """

    ours: Measurement
    mambapy: Measurement
    transformers: Measurement
    growth: float | None


def main() -> None:
    """Measure and print a table, or one case as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--full", action="store_true", help="run transformers' fallback at the whole length too")
    length.add_argument("--quick", action="store_true", help="one small shape, in seconds")
    length.add_argument("--shape", nargs=3, type=int, metavar=("BATCH", "LENGTH", "WIDTH"), help="one shape alone")
    parser.add_argument("--threads", type=int, default=2, help="of torch, for all (default: 2)")
    parser.add_argument("--case", nargs=4, metavar=("MIXER", "BATCH", "LENGTH", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.case:
        mixer, *shape = arguments.case
        batch, tokens, width = (int(size) for size in shape)
        measured = _measure(mixer, batch, tokens, width)
        sys.stdout.write(json.dumps({"seconds": measured.seconds, "bytes": measured.bytes}) + "\n")
        return
    table = _empty_table(arguments.threads)
    for shape in QUICK_SHAPES if arguments.quick else (arguments.shape,) if arguments.shape else SHAPES:
        _add_rows(table, shape, compare(shape, arguments.threads, full=arguments.full or arguments.quick))
    Console().print(table)


def compare(shape: tuple[int, int, int], threads: int, *, full: bool) -> Comparison:
    """Measure the three mixers, each in a process of its own.

    Args:
        shape: Batch, length, width.
        threads: Of torch, for all.
        full: Run transformers' fallback on the whole batch too.
    """
    batch, length, width = shape
    ours = in_own_process("ours", shape, threads)
    mambapy = in_own_process("mambapy", shape, threads)
    if full:
        return Comparison(ours, mambapy, in_own_process("transformers", shape, threads), None)
    one, two = (in_own_process("transformers", (count, length // 4, width), threads) for count in (1, 2))
    growth = two.seconds / one.seconds
    whole = in_own_process("transformers", (1, length, width), threads)
    estimate = Measurement(whole.seconds * growth ** math.log2(batch), whole.bytes * batch)
    return Comparison(ours, mambapy, estimate, growth)


def in_own_process(mixer: str, shape: tuple[int, int, int], threads: int) -> Measurement:
    """Measure one mixer: ``ours``, ``mambapy`` or ``transformers``."""
    command = [sys.executable, "-m", __spec__.name, "--threads", str(threads), "--case", mixer]
    done = subprocess.run([*command, *map(str, shape)], check=True, capture_output=True, text=True)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def _measure(mixer: str, batch: int, length: int, width: int) -> Measurement:
    torch.manual_seed(0)
    weights = _ours(width)[0].state_dict()
    module, run = {"ours": _ours, "mambapy": _mambapy, "transformers": _transformers}[mixer](width)
    module.load_state_dict(weights)

    def step(tokens: Tensor) -> float:
        start = time.perf_counter()
        out = run(tokens)
        torch.autograd.grad(out, [tokens, *module.parameters()], torch.ones_like(out))
        return time.perf_counter() - start

    step(torch.randn(batch, 2, width, requires_grad=True))
    tokens = torch.randn(batch, length, width, requires_grad=True)
    with _MemoryPeak() as peak:
        seconds = [step(tokens)]
    while sum(seconds) < 5 and len(seconds) < 20:
        seconds.append(step(tokens))
    return Measurement(min(seconds), peak.growth)


class _MemoryPeak:
    """The most memory that this process holds beyond what it did at first, looked at every millisecond."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.growth = 0

    def __enter__(self) -> _MemoryPeak:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.growth = max(self.growth, self._process.memory_info().rss - self._before)


def _ours(width: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from diffvqa.stages._mamba import MambaBlock

    block = MambaBlock(width, _STATE)
    return block, lambda tokens: block(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def _mambapy(width: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from mambapy.mamba import MambaBlock, MambaConfig

    block: nn.Module = MambaBlock(MambaConfig(d_model=width, n_layers=1, d_state=_STATE))
    return block, block


def _transformers(width: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from transformers.models.mamba.configuration_mamba import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    block = MambaMixer(MambaConfig(hidden_size=width, state_size=_STATE, num_hidden_layers=1, vocab_size=2), 0)
    return block, block


def _empty_table(threads: int) -> Table:
    table = Table(title=f"Mamba mixer, forward + backward, d_state {_STATE}, expand 2, {threads} thread(s)")
    for name in ("batch, length, width", "mixer", "seconds", "times ours", "MiB", "ours is its 1 /"):
        table.add_column(name, justify="left" if name in ("mixer", "batch, length, width") else "right")
    return table


def _add_rows(table: Table, shape: tuple[int, int, int], comparison: Comparison) -> None:
    ours = comparison.ours
    scaled = "" if comparison.growth is None else f" (from 1 sequence; 2 take x{comparison.growth:.2f})"
    rows = (
        ("ours", ours),
        ("mambapy", comparison.mambapy),
        (f"transformers{scaled}", comparison.transformers),
    )
    for name, measured in rows:
        table.add_row(
            ", ".join(map(str, shape)) if name == "ours" else "",
            name,
            f"{measured.seconds:.3f}",
            f"{measured.seconds / ours.seconds:.1f}",
            f"{measured.bytes / _MIB:.0f}",
            f"{measured.bytes / max(ours.bytes, 1):.1f}",
        )
    table.add_section()


if __name__ == "__main__":
    main()
