"""The mixer against the other implementations that its weights can move to and from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mambapy.mamba import MambaBlock as MambapyBlock
from mambapy.mamba import MambaConfig as MambapyConfig
from torch import Tensor, nn
from transformers.models.mamba.configuration_mamba import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from diffvqa.stages._mamba import BidirectionalMixer, MambaBlock
from diffvqa.stages._scan.selective_scan import ScanChoice, ScanPath

# Forwards and gradients in float32, relative to the largest value.
TOLERANCE = 2e-5

WIDTH, STATE = 24, 5


def make_transformers() -> nn.Module:
    config = MambaConfig(hidden_size=WIDTH, state_size=STATE, num_hidden_layers=1, vocab_size=2)
    mixer: nn.Module = MambaMixer(config, layer_idx=0)
    return mixer


def make_mambapy() -> nn.Module:
    block: nn.Module = MambapyBlock(MambapyConfig(d_model=WIDTH, n_layers=1, d_state=STATE))
    return block


@pytest.mark.parametrize("path", [ScanPath.CPU, ScanPath.REFERENCE])
@pytest.mark.parametrize("make_oracle", [make_transformers, make_mambapy])
def test_outputs_and_gradients_are_those_of_other_implementations_from_the_same_weights(
    make_oracle: Callable[[], nn.Module], path: ScanPath
) -> None:
    torch.manual_seed(0)
    oracle = make_oracle()
    block = MambaBlock(WIDTH, STATE, scan=ScanChoice(path, "asked for"))
    block.load_state_dict(oracle.state_dict())
    assert set(block.state_dict()) == set(oracle.state_dict())
    tokens = torch.randn(3, 37, WIDTH)
    weights = torch.randn(3, 37, WIDTH)
    expected = _results(oracle, oracle(tokens), weights)
    found = _results(block, block(tokens, torch.ones(3, 37, dtype=torch.bool)), weights)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= TOLERANCE * value.abs().max(), name


def test_the_backward_direction_is_a_mixer_on_the_reversed_tokens() -> None:
    torch.manual_seed(1)
    forwards, backwards = make_transformers(), make_transformers()
    backwards.load_state_dict(backwards.state_dict() | _shared(forwards))
    block = BidirectionalMixer(WIDTH, STATE)
    names = set(forwards.state_dict()) - set(_shared(forwards))
    own = {_backward_name(name): backwards.state_dict()[name] for name in names}
    block.load_state_dict(forwards.state_dict() | own)
    tokens = torch.randn(2, 21, WIDTH)
    expected = forwards(tokens) + backwards(tokens.flip(1)).flip(1)
    found = block(tokens, torch.ones(2, 21, dtype=torch.bool))
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def _results(module: nn.Module, out: Tensor, weights: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return {"out": out.detach(), **dict(zip(names, torch.autograd.grad(out, parameters, weights), strict=True))}


def _shared(mixer: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in mixer.state_dict().items() if name.startswith(("in_proj", "out_proj"))}


def _backward_name(name: str) -> str:
    if name == "A_log":
        return "A_b_log"
    part, *rest = name.split(".")
    return ".".join([f"{part}_b", *rest])
