"""The product of stored values piece by piece: the ordinary one is the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from diffvqa.stages import _stored_product
from diffvqa.stages._stored_product import stored_linear

DTYPES = (torch.float16, torch.float32, torch.uint8)


def make_material(leading: tuple[int, ...], columns: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(columns)
    stored = (100 * torch.rand((*leading, columns), generator=generator)).to(dtype)
    weight, bias = torch.randn(width, columns, generator=generator), torch.randn(width, generator=generator)
    return stored, weight.requires_grad_(), bias.requires_grad_()


@given(
    leading=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    columns=st.integers(1, 9),
    width=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    rows_at_once=st.integers(1, 7),
)
def test_it_is_the_ordinary_product(
    leading: tuple[int, ...], columns: int, width: int, dtype: torch.dtype, rows_at_once: int
) -> None:
    """Whatever the shapes, and however the rows fall into pieces."""
    stored, weight, bias = make_material(leading, columns, width, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stored_product, "_PIECE_BYTES", 4 * columns * rows_at_once)
        product = stored_linear(stored, weight, bias)
        probe = torch.randn(product.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(product, (weight, bias), probe)
    expected = F.linear(stored.float(), weight, bias)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-3)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, (weight, bias), probe), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-3)


def test_a_gradient_that_lies_in_another_order_is_the_same() -> None:
    """As it comes back from a transposition."""
    stored, weight, bias = make_material((3, 5), 7, 4, torch.float16)
    probe = torch.randn(3, 4, 5)
    found = torch.autograd.grad(stored_linear(stored, weight, bias).transpose(1, 2), (weight, bias), probe)
    expected = torch.autograd.grad(F.linear(stored.float(), weight, bias).transpose(1, 2), (weight, bias), probe)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_under_autocast_it_computes_as_everything_else_does() -> None:
    stored, weight, bias = make_material((6,), 8, 3, torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        product = stored_linear(stored, weight, bias)
        assert product.dtype == torch.bfloat16
        torch.testing.assert_close(product, F.linear(stored.float(), weight, bias))


def test_no_copy_of_the_values_is_kept_for_the_way_back() -> None:
    """Only the stored values themselves are, which are half as large or smaller."""
    stored, weight, bias = make_material((64,), 32, 3, torch.float16)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stored_linear(stored, weight, bias)
    assert [tensor.data_ptr() for tensor in kept] == [stored.data_ptr()]
