"""Encoder-decoder networks with attention."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.crnn import CTCNet


@runtime_checkable
class CharacterDecoder(Protocol):
    """A decoder that predicts one label at a time, attending to the encoder memory.

    See `TransformerDecoder` and `RecurrentDecoder`.
    """

    def __call__(
        self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"], tokens: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        """Return the logits after each token, given that token and all earlier ones (teacher forcing)."""
        ...

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> Any:
        """Return the state before the first token."""
        ...

    def step(self, tokens: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B C"], Any]:
        """Process the next token of each row, and return the logits after it and the new state.

        All rows may share a memory of one row.
        """
        ...

    def reorder(self, state: Any, rows: Int[Tensor, " N"], memory: bool = True) -> Any:
        """Return a state whose row i is row `rows[i]` of the given state.

        Args:
            state: state of the decoder.
            rows: indices of the rows to keep, which may repeat.
            memory: whether to reorder the memory as well; False if each row still attends to the same memory.
        """
        ...


class EncoderOutput(NamedTuple):
    """The output of an encoder for a batch of lines."""

    memory: Float[Tensor, "B S M"]
    lengths: Int[Tensor, " B"]  # length of each line's memory
    heads: list[Float[Tensor, "B T C"]]  # logits of the CTC heads, if there are any
    frames: Int[Tensor, " B"]  # number of frames per line; a position in the memory may cover several frames


class EncoderDecoder(nn.Module):
    """An encoder and a character decoder that attends to its output (Bahdanau et al., 2015, arXiv:1409.0473).

    Args:
        classes: number of labels, including special tokens.
        encoder: factory called with the number of classes; returns a CTC network, whose features are the memory.
        decoder: factory called with the number of classes and the number of memory channels.
        ctc: whether the encoder keeps its CTC heads, for a joint loss.
    """

    def __init__(
        self,
        classes: int,
        encoder: Callable[[int], CTCNet],
        decoder: Callable[[int, int], CharacterDecoder],
        ctc: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder(classes)
        self.ctc = ctc
        if not ctc:
            self.encoder.head, self.encoder.shortcut = nn.Identity(), None
        self.decoder = decoder(classes, self.encoder.channels)

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> EncoderOutput:
        """Return the memory of each line and the frame logits of the CTC heads."""
        columns, frames = self.encoder.columns(images, widths)
        memory, lengths = self.encoder.encode(columns, frames)
        heads = self.encoder.all_labels(memory, columns) if self.ctc else []
        return EncoderOutput(memory, lengths, heads, frames)


class Memory(nn.Module):
    """An encoder that returns the memory and its length, and the number of frames, which limits that of the labels."""

    outputs = ("memory", "lengths", "frames")

    def __init__(self, net: EncoderDecoder) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S M"], Int[Tensor, " B"], Int[Tensor, " B"]]:
        """Return the memory of each line, its length, and the number of frames."""
        memory, lengths, _, frames = self.net(images, widths)
        return memory, lengths, frames


class Begin(nn.Module):
    """The start of a character decoder for a line without padding."""

    def __init__(self, decoder: CharacterDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, memory: Float[Tensor, "1 S M"]) -> Any:
        """Return the state before the first token."""
        return self.decoder.start(memory, memory.new_full((1,), memory.shape[1], dtype=torch.int64))


class Step(nn.Module):
    """A step of a character decoder whose output is log-probabilities.

    Args:
        decoder: decoder.
        end: end token; those before it never follow a token, and those after it are characters.
    """

    def __init__(self, decoder: CharacterDecoder, end: int) -> None:
        super().__init__()
        self.decoder, self.end = decoder, end

    def forward(
        self, tokens: Int[Tensor, " B"], left: Int[Tensor, " B"], state: Any
    ) -> tuple[Float[Tensor, "B C"], Any]:
        """Return the log-probabilities after the next token of each row, and the new state.

        Args:
            tokens: next token of each row.
            left: number of characters that may follow it.
            state: state of the decoder.
        """
        logits, state = self.decoder.step(tokens, state)
        labels = torch.arange(logits.shape[1], device=logits.device)
        forbidden = (labels < self.end) | (labels > self.end) & (left <= 0)[:, None]
        return logits.float().masked_fill(forbidden, -torch.inf).log_softmax(1), state
