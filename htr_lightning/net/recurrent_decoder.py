"""A recurrent character decoder with attention."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from htr_lightning.net.backbone import is_unpadded
from htr_lightning.parameters import BelowOne, Kernel, Size


class RecurrentState(NamedTuple):
    """The state of a recurrent decoder."""

    hidden: Float[Tensor, "B D"]
    cell: Float[Tensor, "B D"]
    context: Float[Tensor, "B M"]
    attended: Float[Tensor, "B S"]  # attention weight of each position, summed over all steps so far
    memory: Float[Tensor, "#B S M"]
    keys: Float[Tensor, "#B S A"]
    mask: Bool[Tensor, "#B S"] | None  # False for padding


class RecurrentDecoder(nn.Module):
    """An LSTM that predicts one character per step, with location-aware attention.

    The attention is that of Chorowski et al. (2015, "Attention-based models for speech recognition", arXiv:1506.07503,
    section 2.2), using the sum of all earlier attention weights; for its use in handwriting recognition, see Michael et
    al. (2019, "Evaluating sequence-to-sequence models for handwritten text recognition", arXiv:1903.07377).

    Args:
        classes: number of labels, including special tokens.
        memory: number of memory channels.
        width: number of units in the LSTM and in the embedding.
        attention: number of hidden units in the attention.
        kernel: kernel size of the convolution over earlier attention weights; must be odd.
        dropout: dropout probability before the LSTM and the head.
    """

    def __init__(
        self, classes: int, memory: int, width: Size, attention: Size, kernel: Kernel = 15, dropout: BelowOne = 0.1
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.cell = nn.LSTMCell(width + memory, width)
        self.keys = nn.Linear(memory, attention)
        self.query = nn.Linear(width, attention, bias=False)
        self.location = nn.Conv1d(1, attention, kernel, padding=kernel // 2, bias=False)
        self.energy = nn.Linear(attention, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width + memory, classes)

    def forward(
        self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"], tokens: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        """Return the logits after each token (teacher forcing)."""
        state, outputs = self.start(memory, lengths), []
        for embedded in self.dropout(self.embed(tokens)).unbind(1):
            state = self._advance(embedded, state)
            outputs.append(torch.cat([state.hidden, state.context], 1))
        return self.head(self.dropout(torch.stack(outputs, 1)))

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> RecurrentState:
        """Return the state before the first token."""
        mask = None if is_unpadded() else torch.arange(memory.shape[1], device=memory.device) < lengths[:, None]
        hidden, context = (memory.new_zeros(len(memory), size) for size in (self.cell.hidden_size, memory.shape[2]))
        return RecurrentState(
            hidden, hidden, context, torch.zeros_like(memory[:, :, 0]), memory, self.keys(memory), mask
        )

    def step(self, tokens: Int[Tensor, " B"], state: RecurrentState) -> tuple[Float[Tensor, "B C"], RecurrentState]:
        """Return the logits after the next token of each row, and the new state; see `CharacterDecoder`."""
        state = self._advance(self.embed(tokens), state)
        return self.head(torch.cat([state.hidden, state.context], 1)), state

    @staticmethod
    def reorder(state: RecurrentState, rows: Int[Tensor, " N"], memory: bool = True) -> RecurrentState:
        """Return a state whose row i is row `rows[i]` of the given state; see `CharacterDecoder`."""
        *own, values, keys, mask = state
        shared = [part.index_select(0, rows) if memory and part is not None else part for part in (values, keys, mask)]
        return RecurrentState(*(part.index_select(0, rows) for part in own), *shared)

    def _advance(self, embedded: Float[Tensor, "B D"], state: RecurrentState) -> RecurrentState:
        hidden, cell = self.cell(torch.cat([embedded, state.context], 1), (state.hidden, state.cell))
        located = self.location(state.attended[:, None]).transpose(1, 2)
        energies = self.energy(torch.tanh(state.keys + self.query(hidden)[:, None] + located))[:, :, 0]
        energies = energies.float() if state.mask is None else energies.float().masked_fill(~state.mask, -torch.inf)
        weights = energies.softmax(1).to(state.memory.dtype)
        context = torch.matmul(weights[:, None], state.memory)[:, 0]
        return state._replace(hidden=hidden, cell=cell, context=context, attended=state.attended + weights)
