"""Attention in blocks of queries: the same function and gradients as PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from groundup.model.block_attention import block_attention


# One block, whole blocks, and one of which a part is missing.
@pytest.mark.parametrize("length", [16, 256, 300])
def test_values_and_gradients_are_those_of_pytorch(length: int) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (2, length, 3, 8)
    # As a layer has them: heads are the inner dimension.
    q, k, v = (
        torch.randn(shape, generator=generator).transpose(1, 2).requires_grad_() for _ in range(3)
    )
    grad = torch.randn(shape, generator=generator).transpose(1, 2)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    found = block_attention(q, k, v)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), grad),
        torch.autograd.grad(expected, (q, k, v), grad),
    )


def test_the_operator_is_one_that_torch_can_compile() -> None:
    # Protects: shapes, types and aliasing are as declared, which compiled layers rely on.
    inputs = tuple(torch.randn(1, 2, 130, 8, requires_grad=True) for _ in range(3))
    torch.library.opcheck(block_attention, inputs)
