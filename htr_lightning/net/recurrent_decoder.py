"""The recurrent decoder with attention."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class RecurrentState(NamedTuple):
    """What a recurrent decoder has read and written so far."""

    hidden: Float[Tensor, "B D"]
    cell: Float[Tensor, "B D"]
    context: Float[Tensor, "B M"]
    seen: Float[Tensor, "B S"]  # attention to every place so far, summed
    memory: Float[Tensor, "B S M"]
    keys: Float[Tensor, "B S A"]
    mask: Bool[Tensor, "B S"]


class RecurrentDecoder(nn.Module):
    """An LSTM that writes a character a step and looks where to read it, with a sense of where it has looked before.

    The attention is that of Chorowski et al. (2015, "Attention-based models for speech recognition", arXiv:1506.07503,
    section 2.2) over the summed attention so far; for handwriting see Michael et al. (2019, "Evaluating
    sequence-to-sequence models for handwritten text recognition", arXiv:1903.07377).

    Args:
        classes: labels with the specials.
        memory: channels of the memory.
        width: units of the LSTM, and of the embedding of characters.
        attention: units of the attention.
        kernel: places that the convolution over the attention so far sees, odd.
        dropout: probability before the LSTM and the head.
    """

    def __init__(
        self, classes: int, memory: int, width: int, attention: int, kernel: int = 15, dropout: float = 0.1
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
        """The logits behind every token (teacher forcing)."""
        state, read = self.start(memory, lengths), []
        for embedded in self.dropout(self.embed(tokens)).unbind(1):
            state = self._advance(embedded, state)
            read.append(torch.cat([state.hidden, state.context], 1))
        return self.head(self.dropout(torch.stack(read, 1)))

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> RecurrentState:
        """The state before the first token."""
        mask = torch.arange(memory.shape[1], device=memory.device) < lengths[:, None]
        hidden, context = (memory.new_zeros(len(memory), size) for size in (self.cell.hidden_size, memory.shape[2]))
        return RecurrentState(
            hidden, hidden, context, torch.zeros_like(memory[:, :, 0]), memory, self.keys(memory), mask
        )

    def step(self, tokens: Int[Tensor, " B"], state: RecurrentState) -> tuple[Float[Tensor, "B C"], RecurrentState]:
        """The logits behind one token more of every row."""
        state = self._advance(self.embed(tokens), state)
        return self.head(torch.cat([state.hidden, state.context], 1)), state

    @staticmethod
    def reorder(state: RecurrentState, rows: Int[Tensor, " N"], memory: bool = True) -> RecurrentState:
        """See `CharacterDecoder`."""
        *own, places, keys, mask = state
        seen = [part.index_select(0, rows) if memory else part for part in (places, keys, mask)]
        return RecurrentState(*(part.index_select(0, rows) for part in own), *seen)

    def _advance(self, embedded: Float[Tensor, "B D"], state: RecurrentState) -> RecurrentState:
        hidden, cell = self.cell(torch.cat([embedded, state.context], 1), (state.hidden, state.cell))
        located = self.location(state.seen[:, None]).transpose(1, 2)
        energies = self.energy(torch.tanh(state.keys + self.query(hidden)[:, None] + located))[:, :, 0]
        weights = energies.float().masked_fill(~state.mask, -torch.inf).softmax(1).to(state.memory.dtype)
        context = torch.bmm(weights[:, None], state.memory)[:, 0]
        return state._replace(hidden=hidden, cell=cell, context=context, seen=state.seen + weights)
