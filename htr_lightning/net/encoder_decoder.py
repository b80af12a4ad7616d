"""An image encoder and a character decoder with attention."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.crnn import CTCNet


@runtime_checkable
class CharacterDecoder(Protocol):
    """Predicts one label after the other, attending to a memory; see `TransformerDecoder` and `RecurrentDecoder`."""

    def __call__(
        self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"], tokens: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        """The logits after every token, given those up to it (teacher forcing)."""
        ...

    def start(self, memory: Float[Tensor, "B S M"], lengths: Int[Tensor, " B"]) -> Any:
        """The state before the first token."""
        ...

    def step(self, tokens: Int[Tensor, " B"], state: Any) -> tuple[Float[Tensor, "B C"], Any]:
        """The logits after the next token of every row, and the new state."""
        ...

    def reorder(self, state: Any, rows: Int[Tensor, " N"], memory: bool = True) -> Any:
        """The state whose row i is row `rows[i]` of the given one.

        Args:
            memory: whether it is reordered as well; False if each row still attends to the same memory.
        """
        ...


class EncoderOutput(NamedTuple):
    """The memory and its length for every line, the logits of the CTC heads if there are any, and the number of frames
    of every line, of which a position of the memory may hold several."""

    memory: Float[Tensor, "B S M"]
    lengths: Int[Tensor, " B"]
    heads: list[Float[Tensor, "B T C"]]
    frames: Int[Tensor, " B"]


class EncoderDecoder(nn.Module):
    """An encoder and a character decoder that attends to its output (Bahdanau et al., 2015, arXiv:1409.0473).

    Args:
        classes: number of labels, including specials.
        encoder: called with the number of classes; a CTC network, whose features are the memory.
        decoder: called with the numbers of classes and of memory channels.
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
        """The memory of every line, and the frame logits of the CTC heads."""
        columns, frames = self.encoder.columns(images, widths)
        memory, lengths = self.encoder.encode(columns, frames)
        heads = self.encoder.all_labels(memory, columns) if self.ctc else []
        return EncoderOutput(memory, lengths, heads, frames)
