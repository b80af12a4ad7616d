"""Recognition of lines by connectionist temporal classification."""

from collections.abc import Callable, Iterable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.data.batch import Batch
from htr_lightning.decoder import autoregressive
from htr_lightning.decoder.ctc import Greedy, Hypothesis
from htr_lightning.decoder.rescoring import Rescoring
from htr_lightning.errors import InputError
from htr_lightning.model.line import LineRecognizer, ctc_loss, needed_frames

Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]
Output = tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]


class CTCRecognizer(LineRecognizer):
    """Frame labels with a blank (Graves et al., 2006, "Connectionist temporal classification"); the blank is id 0.

    Args:
        alphabet: the characters it can read.
        net: called with the count of classes; maps images and widths to logits "B T C" and lengths "B", and has
            `heads` that gives the logits of every head, the reading one first.
        decoder: maps log-probabilities and lengths to one hypothesis a line.
        others: see `LineRecognizer`.
    """

    specials = ("<blank>",)

    def __init__(
        self, alphabet: Iterable[str], net: Callable[[int], nn.Module], decoder: Decoder, **others: Any
    ) -> None:
        super().__init__(alphabet, decoder, **others)
        if isinstance(decoder, autoregressive.Greedy | autoregressive.Beam | Rescoring):
            raise InputError(
                f"decoder: a {type(decoder).__name__} is for models that write; use decoder=greedy or decoder=beam"
            )
        self.net = net(len(self.codec))

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """CTC loss in nats per character, see `LineRecognizer.ctc`."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        heads, lengths = self.net.heads(batch.images, batch.widths)
        return self.ctc(heads, lengths, batch.ids, targets)

    def summed_loss(self, output: Output, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The CTC loss of the reading head over the lines whose text fits their frames, and their characters."""
        logits, lengths = output
        targets = [self.known(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        rows = [row for row, target in enumerate(targets) if needed_frames(target) <= lengths[row]]
        kept = [targets[row] for row in rows]
        return ctc_loss(logits[rows], lengths[rows], kept), sum(map(len, kept))

    def decoding(self, output: Output) -> tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]:
        logits, lengths = output
        return logits.float().log_softmax(2), lengths

    def set_greedy(self) -> None:
        self.decoder = Greedy()
