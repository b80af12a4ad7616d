"""Encoder-decoder networks with attention."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
        """Process the next token of each row, and return the logits after it and the new state."""
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
