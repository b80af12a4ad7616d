"""Attention follows its formula, in bfloat16 as well."""

import math

import pytest
import torch
from torch.nn import functional

from htr_lightning.net.attention import attend


def by_hand(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V over unmasked keys (Vaswani et al., 2017, equation 1)."""
    scores = torch.einsum("bhtd,bhsd->bhts", query, keys) / math.sqrt(query.shape[-1])
    weights = torch.exp(scores) * seen
    return torch.einsum("bhts,bhsd->bhtd", weights / weights.sum(-1, keepdim=True), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", ["nothing", "bias", "mask", "causal"])
def test_attention_and_its_gradient_are_the_formula(
    masked: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    lengths = 6 if masked == "causal" else 9
    parts = [torch.randn(2, 3, n, 4, dtype=torch.float64).to(dtype) for n in (6, lengths, lengths)]
    seen = torch.ones(2, 1, 1, lengths, dtype=torch.bool)
    if masked in ("bias", "mask"):
        seen[1, ..., 5:] = False
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -math.inf)
    own, exact = ([part.clone().to(kind).requires_grad_() for part in parts] for kind in (dtype, torch.float64))
    kinds = []
    kernel = functional.scaled_dot_product_attention
    monkeypatch.setattr(  # the backward pass is several times slower in bfloat16 on a CPU
        functional,
        "scaled_dot_product_attention",
        lambda *given, **options: kinds.extend(part.dtype for part in given) or kernel(*given, **options),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = attend(*own, {"bias": bias, "mask": seen}.get(masked), causal=masked == "causal")
    expected = by_hand(*exact, torch.ones(6, 6).tril() if masked == "causal" else seen)
    assert found.dtype == dtype
    assert set(kinds) == {torch.float32}
    near = {"atol": 1e-5, "rtol": 0} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(found.double(), expected, **near)
    weight = torch.randn(expected.shape).to(dtype)
    (found * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    for one, other in zip(own, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, **near)
