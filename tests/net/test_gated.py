"""Gated linear recurrence against its definition, frame by frame, in both directions and on every device's path."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from htr_lightning.net.gated import GatedRecurrence, _GatedScan, _scan, _scan_doubling


def defined(x: Float[Tensor, "T B D"], inside: Float[Tensor, "T B 1"]) -> Float[Tensor, "T B H2"]:
    """silu(gates) * states, one frame after the other, for values, decays and gates in `x`."""
    values, decays, gates = x.chunk(3, 2)
    decays, half = decays.sigmoid(), values.shape[2] // 2
    inputs = (1 - decays) * values * inside
    states = torch.zeros_like(values)
    for channels, order in ((slice(half), range(len(x))), (slice(half, None), range(len(x) - 1, -1, -1))):
        state = torch.zeros_like(values[0, :, channels])
        for t in order:
            state = decays[t, :, channels] * state + inputs[t, :, channels]
            states[t, :, channels] = state
    return functional.silu(gates) * states


def batch(frames: int, dtype: torch.dtype = torch.double) -> tuple[Tensor, Tensor]:
    torch.manual_seed(frames)
    inside = torch.ones(frames, 2, 1, dtype=dtype)
    inside[frames // 2 :, 1] = 0
    return torch.randn(frames, 2, 18, dtype=dtype), inside


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 33])
def test_the_states_follow_their_definition(frames: int) -> None:
    x, inside = batch(frames)
    torch.testing.assert_close(_GatedScan.apply(x, inside), defined(x, inside))


def test_the_gradients_are_those_of_the_definition() -> None:
    x, inside = batch(7)
    assert torch.autograd.gradcheck(lambda x: _GatedScan.apply(x, inside), x.requires_grad_())


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 100])
@pytest.mark.parametrize("from_end", [False, True])
def test_exported_programs_compute_the_same_states(
    frames: int, from_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(frames)
    decays, inputs = torch.rand(frames, 2, 6).double(), torch.randn(frames, 2, 6).double()
    expected = _scan(decays, inputs, from_end)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(_scan(decays, inputs, from_end), expected)


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 100])
def test_states_by_doubling_are_the_same(frames: int) -> None:
    torch.manual_seed(frames)
    decays, inputs = torch.rand(frames, 2, 6).double(), torch.randn(frames, 2, 6).double()
    torch.testing.assert_close(_scan_doubling(decays, inputs), _scan(decays, inputs, False))


def test_bfloat16_keeps_its_states_in_float32() -> None:
    """A sum of a thousand equal values is exact to bfloat16's rounding of the result, not of each frame."""
    x, inside = batch(1000, torch.float32)
    x[..., 6:12] = 6.0  # a long memory
    given = x.bfloat16()
    expected = defined(given.float(), inside)
    result = _GatedScan.apply(given, inside)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=2**-8, atol=1e-6)


def test_units_begin_with_different_lengths_of_memory() -> None:
    decays = torch.sigmoid(GatedRecurrence(8, 5).inputs.bias[10:20])
    torch.testing.assert_close(decays, torch.tensor([0.0, 0.75, 1.5, 2.25, 3.0]).sigmoid().repeat(2))
