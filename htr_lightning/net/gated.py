"""A CRNN with gated linear recurrence, which trains faster on a CPU than an LSTM and learns more from each step."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.net.backbone import column_mask
from htr_lightning.net.crnn import Backbone, CTCNet, LockedDropout
from htr_lightning.net.span_mask import SpanMask
from htr_lightning.parameters import BelowOne, Depth, Size

DOUBLINGS = 12  # in exported programs; enough for 4,096 frames, twice as many as the widest line has by default


class GatedCRNN(CTCNet):
    """A CNN, max-pooling over its rows, layers of gated linear recurrence in both directions, and a linear CTC head.

    Args:
        classes: number of labels, including the blank.
        backbone: backbone that maps images and widths to features and their widths.
        width: number of channels of a frame between the layers.
        hidden: number of recurrent units per direction.
        layers: number of recurrent layers.
        dropout: dropout probability before each layer and the head; a line has the same mask in all its frames.
        shortcut: whether to add a second CTC head on the columns of the backbone.
        mask_ratio: fraction of columns masked in training (see `SpanMask`); 0 for none.
        mask_span: length of a masked span in columns.
    """

    def __init__(
        self,
        classes: int,
        backbone: Backbone,
        width: Size,
        hidden: Size,
        layers: Depth,
        dropout: BelowOne = 0.0,
        shortcut: bool = True,
        mask_ratio: BelowOne = 0.0,
        mask_span: Size = 8,
    ) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, width
        self.mask = SpanMask(mask_ratio, mask_span)
        self.enter = nn.Linear(backbone.channels, width)
        self.recurrent = nn.ModuleList(GatedRecurrence(width, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = LockedDropout(dropout, frames=0)
        self.head = nn.Linear(width, classes)
        self.shortcut = nn.Conv1d(backbone.channels, classes, 3, padding=1) if shortcut else None

    def encode(
        self, columns: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T M"], Int[Tensor, " B"]]:
        x = self.mask(columns, lengths).transpose(0, 1)  # frames first, so that the recurrence reads whole rows
        inside = column_mask(lengths, x.shape[0])[:, 0, 0].t()[..., None].float()
        x = self.enter(self.dropout(x)).contiguous()
        for layer in self.recurrent:
            x = x + layer(self.dropout(x), inside)
        return self.dropout(self.norm(x)).transpose(0, 1), lengths

    def label(self, features: Float[Tensor, "B T M"], frames: int) -> Float[Tensor, "B T C"]:
        return self.head(features)


class GatedRecurrence(nn.Module):
    """Gated linear recurrence in both directions, on normalised frames that are mixed with their neighbours.

    With values v, decays f = sigmoid(.) and gates r, all linear in the frames, the states are
    c[t] = f[t] c[t - 1] + (1 - f[t]) v[t], and the output is linear in silu(r[t]) c[t]. Unlike in an LSTM, no matrix is
    multiplied from frame to frame. This is the simple recurrent unit of Lei et al. (2018, arXiv:1709.02755) without its
    shortcut, or the minimal GRU of Feng et al. (2024, arXiv:2410.01201) with an output gate. Decays start between 0.5
    and 0.95, so that units remember between two and twenty frames.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.neighbors = nn.Parameter(torch.zeros(2, width))  # weights of the previous and the next frame
        self.inputs = nn.Linear(width, 6 * hidden)  # values, decays and gates, each of both directions
        self.output = nn.Linear(2 * hidden, width)
        with torch.no_grad():
            self.inputs.bias[2 * hidden : 4 * hidden] = torch.linspace(0, 3, hidden).repeat(2)

    def forward(self, x: Float[Tensor, "T B D"], inside: Float[Tensor, "#T #B 1"]) -> Float[Tensor, "T B D"]:
        """Return the output for each frame; frames that are not inside their line (0) do not affect the others."""
        x = functional.pad(self.norm(x) * inside, (0, 0, 0, 0, 1, 1))
        x = x[1:-1] + self.neighbors[0] * x[:-2] + self.neighbors[1] * x[2:]
        x = self.inputs(x)
        return self.output(_GatedScan.apply(x, inside) if torch.is_grad_enabled() else _gated_scan(x, inside)[0])


def _gated_scan(x: Float[Tensor, "T B H6"], inside: Float[Tensor, "#T #B 1"]) -> tuple[Tensor, ...]:
    """Map the values, decays and gates of both directions to silu(gates) * states, computed in float32 at least.

    Returns:
        The result, followed by the values, decays, states, gates and sigmoid(gates) that it was computed from.
    """
    values, decays, gates = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(3, 2)
    values, decays, opened = values * inside, torch.sigmoid(decays), torch.sigmoid(gates)
    states = _both_ways(_scan, decays, torch.addcmul(values, decays, values, value=-1))
    return (opened * gates * states).to(x.dtype), values, decays, states, gates, opened


class _GatedScan(torch.autograd.Function):
    """`_gated_scan` with its gradient, which autograd would compute with one small operation for each frame."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "T B H6"], inside: Float[Tensor, "#T #B 1"]) -> Float[Tensor, "T B H2"]:
        result, *parts = _gated_scan(x, inside)
        ctx.save_for_backward(*parts, inside)
        ctx.dtype = x.dtype
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "T B H2"]) -> tuple[Float[Tensor, "T B H6"], None]:
        values, decays, states, gates, opened, inside = ctx.saved_tensors
        of_output, silu = gradients[0].to(values.dtype), opened * gates
        of_inputs = of_output.new_empty(*of_output.shape[:2], 3 * of_output.shape[2])
        of_values, of_decays, of_gates = of_inputs.chunk(3, 2)
        torch.mul(of_output * states, torch.addcmul(opened + silu, opened, silu, value=-1), out=of_gates)
        of_states = _both_ways(_scan_back, decays, of_output * silu)
        torch.mul(torch.addcmul(of_states, decays, of_states, value=-1), inside, out=of_values)
        torch.sub(_both_ways(_previous, states), values, out=of_decays)
        of_decays.mul_(of_states).mul_(torch.addcmul(decays, decays, decays, value=-1))
        return of_inputs.to(ctx.dtype), None


def _both_ways(function: Callable[..., Tensor], *arguments: Float[Tensor, "T B H2"]) -> Float[Tensor, "T B H2"]:
    """Call `function` for each half of the channels; its last argument tells that the half runs from the end."""
    ahead, back = zip(*(argument.chunk(2, 2) for argument in arguments), strict=True)
    return torch.cat([function(*ahead, False), function(*back, True)], 2)


def _scan(decays: Float[Tensor, "T B H"], inputs: Float[Tensor, "T B H"], from_end: bool) -> Float[Tensor, "T B H"]:
    """Return the states c[t] = decays[t] c[t - 1] + inputs[t], or those with c[t + 1] instead if `from_end`."""
    if torch.compiler.is_exporting() or inputs.device.type != "cpu":  # few large operations instead of many small ones
        return _scan_doubling(decays.flip(0), inputs.flip(0)).flip(0) if from_end else _scan_doubling(decays, inputs)
    states = torch.empty(inputs.shape, dtype=inputs.dtype)
    frames = [x.unbind(0)[:: -1 if from_end else 1] for x in (decays, inputs, states)]
    state = torch.zeros_like(inputs[0])
    for decay, given, into in zip(*frames, strict=True):
        state = torch.addcmul(given, decay, state, out=into)
    return states


def _scan_doubling(decays: Float[Tensor, "T B H"], inputs: Float[Tensor, "T B H"]) -> Float[Tensor, "T B H"]:
    """Return the states of `_scan`; each round doubles the number of frames that a state takes into account.

    An exported program has the same number of rounds for lines of every length.
    """
    rounds = DOUBLINGS if torch.compiler.is_exporting() else (inputs.shape[0] - 1).bit_length()
    for shift in (1 << number for number in range(rounds)):
        earlier, decayed = (_delayed(x, shift) for x in (inputs, decays))
        inputs, decays = torch.addcmul(inputs, decays, earlier), decays * decayed
    return inputs


def _delayed(x: Float[Tensor, "T B H"], frames: int) -> Float[Tensor, "T B H"]:
    return functional.pad(x, (0, 0, 0, 0, frames, 0))[: x.shape[0]]


def _scan_back(
    decays: Float[Tensor, "T B H"], gradients: Float[Tensor, "T B H"], from_end: bool
) -> Float[Tensor, "T B H"]:
    """Return the gradients of the inputs of `_scan` from those of its states."""
    return _scan(decays.roll(1 if from_end else -1, 0), gradients, not from_end)


def _previous(states: Float[Tensor, "T B H"], from_end: bool) -> Float[Tensor, "T B H"]:
    """Return the state before each state, which is zero at the start."""
    return (
        functional.pad(states[1:], (0, 0, 0, 0, 0, 1)) if from_end else functional.pad(states[:-1], (0, 0, 0, 0, 1, 0))
    )
