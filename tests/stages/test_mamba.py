from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffvqa.stages._mamba import BidirectionalMamba, BidirectionalMixer, MambaBlock
from diffvqa.stages._scan.selective_scan import ScanChoice, ScanPath


def naive_direction(block: MambaBlock, tokens: Tensor, suffix: str, *, reverse: bool) -> Tensor:
    """One direction by the book, on one sequence without padding: (L, width) to (L, inner) before the output gate."""
    parameters = dict(block.named_parameters())
    log_rates = parameters["A_b_log" if suffix else "A_log"]
    x = block.in_proj(tokens)[:, : block.inner]
    x = x.flip(0) if reverse else x
    kernel, bias = parameters[f"conv1d{suffix}.weight"][:, 0], parameters[f"conv1d{suffix}.bias"]
    padded = torch.cat([x.new_zeros(block.kernel - 1, block.inner), x])
    windows = torch.stack([(padded[t : t + block.kernel].T * kernel).sum(1) + bias for t in range(len(x))])
    u = torch.nn.functional.silu(windows)
    step, B, C = torch.split(u @ parameters[f"x_proj{suffix}.weight"].T, [block.rank, block.state, block.state], dim=-1)
    delta = torch.nn.functional.softplus(
        step @ parameters[f"dt_proj{suffix}.weight"].T + parameters[f"dt_proj{suffix}.bias"]
    )
    rates = -torch.exp(log_rates)
    hidden = torch.zeros_like(rates)
    read = []
    for t in range(len(x)):
        hidden = torch.exp(delta[t, :, None] * rates) * hidden + (delta[t] * u[t])[:, None] * B[t]
        read.append(hidden @ C[t] + parameters[f"D{suffix}"] * u[t])
    return torch.stack(read[::-1] if reverse else read)


def test_a_block_reads_forwards_and_a_bidirectional_one_backwards_too() -> None:
    torch.manual_seed(0)
    block = BidirectionalMixer(width=6, state=3)
    tokens = torch.randn(2, 5, 6)
    mask = torch.ones(2, 5, dtype=torch.bool)
    for sequence, found in zip(tokens, block(tokens, mask), strict=True):
        gate = torch.nn.functional.silu(block.in_proj(sequence)[:, block.inner :])
        forwards = naive_direction(block, sequence, "", reverse=False)
        backwards = naive_direction(block, sequence, "_b", reverse=True)
        assert torch.allclose(found, block.out_proj((forwards + backwards) * gate), atol=1e-5)


def test_a_forward_block_sees_no_later_token_and_a_bidirectional_one_does() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(1, 6, 4)
    later = tokens.clone()
    later[:, 4:] += 1.0
    mask = torch.ones(1, 6, dtype=torch.bool)
    forwards, both = MambaBlock(4, 2), BidirectionalMixer(4, 2)
    assert torch.equal(forwards(tokens, mask)[:, :4], forwards(later, mask)[:, :4])
    assert not torch.allclose(both(tokens, mask)[:, :4], both(later, mask)[:, :4])


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 4))
def test_padding_has_no_effect_whatever_stands_there(seed: int, length: int, padding: int) -> None:
    torch.manual_seed(seed)
    block = BidirectionalMamba(4, 2)
    torch.nn.init.normal_(block.norm.bias)
    tokens = torch.randn(1, length, 4)
    padded = torch.cat([tokens, 100.0 * torch.randn(1, padding, 4)], dim=1)
    mask = (torch.arange(length + padding) < length)[None]
    alone = block(tokens, torch.ones(1, length, dtype=torch.bool))
    assert torch.allclose(block(padded, mask)[:, :length], alone, atol=1e-6)


def test_padding_gets_no_gradient() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(1, 5, 4, requires_grad=True)
    mask = torch.tensor([[True, True, True, False, False]])
    BidirectionalMamba(4, 2)(tokens, mask)[:, :3].sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[:, 3:].eq(0).all()
    assert tokens.grad[:, :3].ne(0).any()


def test_parameters_have_the_names_of_mamba_ssm() -> None:
    own = {"A_log", "D", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"}
    shared = {"in_proj.weight", "out_proj.weight"}
    backward = {"A_b_log", "D_b"} | {f"{n.split('.')[0]}_b.{n.split('.')[1]}" for n in own - {"A_log", "D"}}
    assert set(MambaBlock(4, 2).state_dict()) == own | shared
    assert set(BidirectionalMixer(4, 2).state_dict()) == own | shared | backward


@pytest.mark.parametrize("block", [MambaBlock, BidirectionalMamba])
def test_both_ways_on_a_cpu_give_the_same_block(
    block: type[MambaBlock] | type[BidirectionalMamba],
) -> None:
    torch.manual_seed(0)
    fast = block(24, 4, scan=ScanChoice(ScanPath.CPU, "asked for"))
    plain = block(24, 4, scan=ScanChoice(ScanPath.REFERENCE, "asked for"))
    plain.load_state_dict(fast.state_dict())
    tokens = torch.randn(3, 40, 24)
    mask = torch.rand(3, 40) < 0.7
    results = []
    for module in (fast, plain):
        out = module(tokens, mask) * mask.unsqueeze(-1)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(module.parameters()))])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_under_autocast_a_block_works_in_bfloat16_and_learns_in_float32() -> None:
    torch.manual_seed(0)
    block = BidirectionalMamba(24, 4)
    tokens = torch.randn(2, 30, 24)
    mask = torch.ones(2, 30, dtype=torch.bool)
    exact = block(tokens, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(tokens, mask)
    assert 0 < (mixed - exact).abs().max() < 2e-2 * exact.abs().max()
    gradients = torch.autograd.grad(mixed.float().square().sum(), list(block.parameters()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_the_first_process_after_an_installation_computes_what_all_later_ones_do(tmp_path: Path) -> None:
    """Code that numba has just compiled may round otherwise than the same code loaded from its cache.

    The later one forks the first before either has loaded a kernel, so that what both import is imported once.
    """
    program = """
import hashlib, os, torch
from diffvqa.stages import BidirectionalMamba
from diffvqa.stages._scan import compilation
torch.set_num_threads(1)
first = os.fork()
if first:
    assert os.waitpid(first, 0)[1] == 0
torch.manual_seed(0)
block, tokens = BidirectionalMamba(32, 4), torch.randn(3, 50, 32, requires_grad=True)
out = block(tokens, torch.ones(3, 50, dtype=torch.bool))
out.square().sum().backward()
results = [out, tokens.grad, *(parameter.grad for parameter in block.parameters())]
print(hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in results)).hexdigest())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True)
    assert list(tmp_path.rglob("*.nbi"))
    first, second = done.stdout.split()
    assert first == second
