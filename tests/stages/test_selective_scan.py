from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scan_material import (
    GRADIENT_NAMES,
    Scan,
    largest_difference,
    outputs_and_gradients,
    random_mask,
    scan_inputs,
    seeds,
    shapes,
    with_type,
)
from torch import Tensor
from torch.nn import functional as F

from diffvqa.stages._scan import cpu, cuda, reference, selective_scan
from diffvqa.stages._scan.inputs import ConvInputs
from diffvqa.stages._scan.selective_scan import ScanChoice, ScanPath, choose_scan

FLOAT32_TOLERANCE = 2e-5
BFLOAT16_TOLERANCE = 2e-2

WHOLE = (2, 3, 37, 70, 5)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[None]:
    yield
    for cached in (selective_scan._choose_on_cpu, selective_scan._choose_on_cuda):
        cached.cache_clear()


def scan_by_definition(
    u: np.ndarray, delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray
) -> np.ndarray:
    """One sequence, one direction: u and delta (L, E), A (E, S), B and C (L, S), D (E,)."""
    y = np.zeros_like(u)
    for e in range(u.shape[1]):
        state = np.zeros(A.shape[1])
        for t in range(len(u)):
            state = np.exp(delta[t, e] * A[e]) * state + delta[t, e] * B[t] * u[t, e]
            y[t, e] = C[t] @ state + D[e] * u[t, e]
    return y


def fused_scan_by_the_book(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """What mamba-ssm documents of ``selective_scan_fn``, and what its kernel demands of its arguments.

    u, delta, z: (batch, dim, L); A: (dim, state); B, C: (batch, groups, state, L); D, delta_bias: (dim,).
    """
    assert D is not None
    assert z is not None
    assert delta_bias is not None
    assert not return_last_state
    assert u.dtype == delta.dtype == B.dtype == C.dtype == z.dtype
    assert A.dtype == D.dtype == delta_bias.dtype == torch.float32
    assert u.shape == delta.shape == z.shape
    assert B.shape == C.shape
    batch, dim, length = u.shape
    assert B.shape == (batch, B.shape[1], A.shape[1], length)
    assert dim % B.shape[1] == 0
    assert all(part.stride(-1) == 1 or part.shape[-1] == 1 for part in (u, delta, B, C, z))
    steps = delta.float() + delta_bias[:, None]
    steps = F.softplus(steps) if delta_softplus else steps
    inputs = u.float()
    per_channel = dim // B.shape[1]
    B, C = (part.float().repeat_interleave(per_channel, dim=1) for part in (B, C))
    state = u.new_zeros(batch, dim, A.shape[1], dtype=torch.float32)
    read = []
    for t in range(length):
        state = torch.exp(steps[:, :, t, None] * A) * state + (steps * inputs)[:, :, t, None] * B[..., t]
        read.append((state * C[..., t]).sum(-1))
    y = torch.stack(read, dim=-1) + D[:, None] * inputs
    return (y * F.silu(z.float())).to(u.dtype)


by_cuda = functools.partial(cuda.selective_scan, fused_scan_by_the_book)


@settings(max_examples=25)
@given(shapes, seeds)
def test_the_reference_is_the_scan_of_the_definition(shape: tuple[int, int, int, int, int], seed: int) -> None:
    inputs = scan_inputs(shape, seed, torch.float64)
    found = reference.selective_scan(inputs)
    for n, tokens in enumerate(inputs.mask):
        expected = np.zeros((int(tokens.sum()), shape[3]))
        for g, against in enumerate(inputs.reverse):
            delta = F.softplus(inputs.step[g, n] + inputs.step_bias[g])
            order = slice(None, None, -1 if against else 1)
            parts = [part[tokens].numpy()[order] for part in (inputs.u[g, n], delta, inputs.B[g, n], inputs.C[g, n])]
            u, steps, B, C = parts
            expected += scan_by_definition(u, steps, inputs.A[g].numpy(), B, C, inputs.D[g].numpy())[order]
        expected *= F.silu(inputs.gate[n])[tokens].numpy()
        assert found[n][tokens].numpy() == pytest.approx(expected, abs=1e-9)
        assert found[n][~tokens].eq(0).all()


def test_the_reference_has_the_right_gradients() -> None:
    inputs = scan_inputs((2, 2, 5, 2, 3), 5, torch.float64)
    leaves = [getattr(inputs, name).requires_grad_() for name in GRADIENT_NAMES]

    def scan(*tensors: Tensor) -> Tensor:
        changed: dict[str, Any] = dict(zip(GRADIENT_NAMES, tensors, strict=True))
        return reference.selective_scan(replace(inputs, **changed))

    assert torch.autograd.gradcheck(scan, leaves)


@settings(max_examples=40)
@given(shapes, seeds)
def test_the_three_paths_agree_in_float32(shape: tuple[int, int, int, int, int], seed: int) -> None:
    inputs = scan_inputs(shape, seed)
    expected = dict(outputs_and_gradients(reference.selective_scan, scan_inputs(shape, seed, torch.float64)))
    for path in (reference.selective_scan, cpu.selective_scan, by_cuda):
        for name, found in outputs_and_gradients(path, inputs):
            assert largest_difference(found, expected[name]) < FLOAT32_TOLERANCE, (path, name)


@settings(max_examples=25)
@given(shapes, seeds)
def test_the_three_paths_agree_in_bfloat16(shape: tuple[int, int, int, int, int], seed: int) -> None:
    inputs = scan_inputs(shape, seed, torch.bfloat16)
    exact = with_type(inputs, torch.float64)
    expected = dict(outputs_and_gradients(reference.selective_scan, exact))
    for path in (reference.selective_scan, cpu.selective_scan, by_cuda):
        for name, found in outputs_and_gradients(path, inputs):
            assert largest_difference(found, expected[name]) < BFLOAT16_TOLERANCE, (path, name)
            if name in ("out", "u"):
                assert found.dtype == torch.bfloat16


@settings(max_examples=40)
@given(shapes, seeds)
def test_the_convolutions_agree(shape: tuple[int, int, int, int, int], seed: int) -> None:
    directions, sequences, length, channels, taps = shape
    generator = torch.Generator().manual_seed(seed)
    mask = random_mask(sequences, length, generator)
    projected = torch.randn(sequences, length, 2 * channels, generator=generator)
    tensors = (
        projected,
        torch.randn(directions, channels, taps, generator=generator),
        torch.randn(directions, channels),
    )
    weights = torch.randn(directions, sequences, length, channels, generator=generator) * mask.unsqueeze(-1)
    results = []
    for convolve in (reference.convolve, cpu.convolve):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        x = leaves[0].chunk(2, dim=-1)[0]
        out = convolve(ConvInputs(x, leaves[1], leaves[2], mask, (False, True)[:directions]))
        results.append([out.detach() * mask.unsqueeze(-1), *torch.autograd.grad(out, leaves, weights)])
    for expected, found in zip(*results, strict=True):
        assert largest_difference(found, expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("path", [reference.selective_scan, cpu.selective_scan, by_cuda])
def test_what_stands_at_padding_is_never_read(path: Scan) -> None:
    inputs = scan_inputs(WHOLE, 1)
    spoilt = {}
    for name in ("u", "step", "B", "C", "gate"):
        spoilt[name] = getattr(inputs, name).masked_fill(~inputs.mask.unsqueeze(-1), torch.nan)
    assert not inputs.mask.all()
    results = zip(
        outputs_and_gradients(path, inputs), outputs_and_gradients(path, replace(inputs, **spoilt)), strict=True
    )
    for (name, expected), (_, found) in results:
        assert torch.equal(found, expected), name


def test_extreme_steps_give_what_they_should() -> None:
    inputs = scan_inputs((1, 1, 6, 2, 2), 0)
    inputs = replace(inputs, mask=torch.ones(1, 6, dtype=torch.bool))
    for step in (-1e4, -90.0, -20.0, 20.0, 90.0, 1e4):
        extreme = replace(inputs, step=torch.full_like(inputs.step, step))
        expected = dict(outputs_and_gradients(reference.selective_scan, extreme))
        for name, found in outputs_and_gradients(cpu.selective_scan, extreme):
            assert largest_difference(found, expected[name]) < FLOAT32_TOLERANCE, (step, name)


@pytest.mark.parametrize("name", ["u", "step", "A", "B", "C", "D", "gate"])
def test_nan_shows_in_the_output(name: str) -> None:
    inputs = scan_inputs(WHOLE, 2)
    inputs = replace(inputs, mask=torch.ones_like(inputs.mask))
    broken = getattr(inputs, name).clone()
    broken.view(-1)[0] = torch.nan
    assert cpu.selective_scan(replace(inputs, **{name: broken})).isnan().any()


def test_nothing_is_kept_without_gradients_and_the_result_is_the_same() -> None:
    inputs = scan_inputs(WHOLE, 3)
    wanted = replace(inputs, u=inputs.u.clone().requires_grad_())
    with torch.no_grad():
        without = cpu.selective_scan(wanted)
    assert without.grad_fn is None
    assert torch.equal(without, cpu.selective_scan(wanted))


def test_only_the_gradients_asked_for_flow() -> None:
    inputs = scan_inputs(WHOLE, 3)
    u = inputs.u.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cpu.selective_scan(replace(inputs, u=u)).sum(), [u])
    assert grad.shape == u.shape


@pytest.mark.parametrize("path", [reference.selective_scan, cpu.selective_scan])
def test_a_second_derivative_is_refused(path: Scan) -> None:
    inputs = scan_inputs(WHOLE, 4)
    u = inputs.u.clone().requires_grad_()
    out = path(replace(inputs, u=u))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.square().sum(), [u], create_graph=True)


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    inputs = scan_inputs((2, 4, 200, 130, 16), 5)
    torch.set_num_threads(1)
    alone = dict(outputs_and_gradients(cpu.selective_scan, inputs))
    torch.set_num_threads(3)
    for name, found in outputs_and_gradients(cpu.selective_scan, inputs):
        assert torch.equal(found, alone[name]), name


@pytest.mark.usefixtures("threads")
def test_several_threads_may_scan_at_once() -> None:
    torch.set_num_threads(2)
    shape = (2, 4, 100, 130, 16)
    expected = [cpu.selective_scan(scan_inputs(shape, seed)) for seed in range(4)]
    found: dict[int, Tensor] = {}

    def scan(seed: int) -> None:
        found[seed] = cpu.selective_scan(scan_inputs(shape, seed))

    threads = [threading.Thread(target=scan, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], expected[seed]) for seed in range(4))


_FORKED = """
import multiprocessing, sys, torch
from diffvqa.stages._scan import cpu
from scan_material import scan_inputs

def scan(seed):
    # Two threads of the kernels, while each tensor is too small for a thread of OpenMP's: GNU's cannot follow a fork.
    cpu._WORK_PER_THREAD = 1000
    return float(cpu.selective_scan(scan_inputs((2, 4, 30, 70, 4), seed)).sum())

if __name__ == "__main__":
    torch.set_num_threads(2)
    before = [scan(seed) for seed in range(2)]
    for method, processes in (("fork", 2), ("spawn", 1)):
        if method in multiprocessing.get_all_start_methods():
            with multiprocessing.get_context(method).Pool(processes) as pool:
                assert pool.map(scan, range(2)) == before, method
            assert [scan(seed) for seed in range(2)] == before, method
            print(method)
"""


def test_child_processes_of_a_process_that_scanned_can_scan(tmp_path: Path) -> None:
    script = tmp_path / "children.py"
    script.write_text(_FORKED)
    done = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"fork", "spawn"} & set(multiprocessing.get_all_start_methods())


def test_a_cpu_scan_takes_the_kernels() -> None:
    assert choose_scan(torch.device("cpu")).path is ScanPath.CPU
    assert choose_scan(torch.device("cpu"), torch.bfloat16).path is ScanPath.CPU


def test_float64_and_other_devices_take_plain_pytorch() -> None:
    assert choose_scan(torch.device("cpu"), torch.float64).path is ScanPath.REFERENCE
    other = choose_scan(torch.device("meta"))
    assert other.path is ScanPath.REFERENCE
    assert "'meta'" in other.reason


@pytest.mark.parametrize("missing", ["numba", "numba.core.errors"])
def test_without_numba_plain_pytorch_takes_over_and_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    cpu.load_kernels.cache_clear()
    selective_scan._choose_on_cpu.cache_clear()
    choice = choose_scan(torch.device("cpu"))
    assert choice.path is ScanPath.REFERENCE
    assert "numba cannot be imported" in str(choice)
    inputs = scan_inputs(WHOLE, 6)
    assert torch.equal(selective_scan.selective_scan(choice, inputs), reference.selective_scan(inputs))
    cpu.load_kernels.cache_clear()


def test_with_numba_switched_off_plain_pytorch_takes_over_and_says_so() -> None:
    code = (
        "import torch; from diffvqa.stages._scan.selective_scan import choose_scan\n"
        "print(choose_scan(torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("selective scan by pytorch")
    assert "NUMBA_DISABLE_JIT" in done.stdout


def test_a_compiler_that_fails_lets_plain_pytorch_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.errors import TypingError

    from diffvqa.stages._scan import compilation

    def fail(*_: object) -> None:
        raise TypingError("no such machine")

    monkeypatch.setattr(compilation, "compile_kernels", fail)
    cpu.load_kernels.cache_clear()
    selective_scan._choose_on_cpu.cache_clear()
    choice = choose_scan(torch.device("cpu"))
    assert choice.path is ScanPath.REFERENCE
    assert "no such machine" in choice.reason
    cpu.load_kernels.cache_clear()


def test_without_a_folder_for_the_cache_the_kernels_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffvqa.stages._scan import compilation

    class Kernel:
        compiled = False

        def enable_caching(self) -> None:
            raise RuntimeError("cannot cache function: no locator available")

        def compile(self, _: object) -> None:
            self.compiled = True

    kernel = Kernel()
    monkeypatch.setitem(compilation._KERNELS, "scan_forward", (kernel, ()))
    compilation.compile_kernels(["scan_forward"])
    assert kernel.compiled


def install_fake_mamba_ssm(monkeypatch: pytest.MonkeyPatch, kernel: object) -> None:
    package, ops = types.ModuleType("mamba_ssm"), types.ModuleType("mamba_ssm.ops")
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.__dict__.update(selective_scan_fn=fused_scan_by_the_book, selective_scan_cuda=kernel)
    ops.__dict__.update(selective_scan_interface=interface)
    for module in (package, ops, interface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    selective_scan._choose_on_cuda.cache_clear()


def test_on_cuda_the_installed_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_mamba_ssm(monkeypatch, kernel=object())
    choice = choose_scan(torch.device("cuda"))
    assert choice.path is ScanPath.CUDA
    inputs = scan_inputs(WHOLE, 7)
    expected = reference.selective_scan(inputs)
    assert largest_difference(selective_scan.selective_scan(choice, inputs), expected) < FLOAT32_TOLERANCE


def test_on_cuda_without_the_kernel_plain_pytorch_takes_over_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    choice = choose_scan(torch.device("cuda"))
    assert choice == ScanChoice(ScanPath.REFERENCE, choice.reason)
    assert "mamba-ssm's kernel cannot be imported" in choice.reason


def test_a_mamba_ssm_built_without_its_kernel_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_mamba_ssm(monkeypatch, kernel=None)
    choice = choose_scan(torch.device("cuda"))
    assert choice.path is ScanPath.REFERENCE
    assert "built without" in choice.reason
