"""Line recognition with connectionist temporal classification (CTC)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from htr_lightning.data.batch import Batch, moved
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.hypothesis import Decoder
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.errors import InputError
from htr_lightning.model.base import Exportable, Recognizer
from htr_lightning.model.line import LineRecognizer, ctc_loss, required_frames
from htr_lightning.net.crnn import CTCNet

Output = tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]

CANDIDATES = PrefixBeam(width=8, top_labels=8, min_probability=1e-3, prune_margin=10.0)


class LogProbs(nn.Module):
    """A CTC network that returns log-probabilities instead of logits.

    Args:
        net: network.
        labels: labels to keep, the blank first; None for all.
    """

    outputs = ("log_probs", "lengths")

    def __init__(self, net: nn.Module, labels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.labels = net, labels

    def forward(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]:
        """Return the log-probabilities and the number of frames of each line."""
        logits, lengths = self.net(images, widths)
        if self.labels is not None:
            logits = logits[:, :, self.labels]
        return logits.float().log_softmax(2), lengths


class CTCRecognizer(LineRecognizer):
    """A line recognizer trained with CTC (Graves et al., 2006, "Connectionist temporal classification").

    The blank has id 0.

    Args:
        alphabet: characters that the recognizer can output.
        net: factory called with the number of classes; the network maps images and widths to logits of shape
            (B, T, C) and lengths of shape (B,).
        decoder: decoder for arrays of log-probabilities and lengths.
        others: arguments of `LineRecognizer`.
    """

    specials = ("<blank>",)
    net: CTCNet

    def __init__(self, alphabet: Iterable[str], net: Callable[[int], CTCNet], decoder: Decoder, **others: Any) -> None:
        super().__init__(alphabet, decoder, **others)
        if decoder.inputs != "frames":
            raise InputError(
                f"decoder: {type(decoder).__name__} decodes {decoder.inputs}, but a CTC model outputs frames; use "
                "decoder=greedy or decoder=beam"
            )
        self.net = net(len(self.codec))

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the CTC loss in nats per character (see `LineRecognizer.ctc`), plus that of imitating the teacher."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        widths = moved(batch.widths, batch.images.device)
        heads, lengths = self.net.heads(batch.images, widths)
        loss = self.ctc(heads, self.net.frames(batch.widths), batch.ids, targets)
        if self.teacher is not None:
            imitation = self.teacher(batch.images, widths, heads[0], lengths)
            loss = loss + imitation / max(1, sum(map(len, targets)))
        return loss

    def units(self, batch: Batch) -> int:
        """Return the number of characters in the lines that have enough frames for them."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        frames = self.net.frames(batch.widths).tolist()
        return sum(len(target) for target, own in zip(targets, frames, strict=True) if required_frames(target) <= own)

    def summed_loss(self, output: Output, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """Return the main head's CTC loss summed over lines with enough frames, and the number of their characters."""
        logits, frames = output[0], self.net.frames(batch.widths).cpu()
        targets = [self.known(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        rows = [row for row, target in enumerate(targets) if required_frames(target) <= frames[row]]
        kept = [targets[row] for row in rows]
        return ctc_loss(logits[rows], frames[rows], kept), sum(map(len, kept))

    def scores(self, output: Output) -> tuple[Float[ndarray, "B T C"], Int[ndarray, " B"]]:
        logits, lengths = output
        return logits.detach().float().log_softmax(2).cpu().numpy(), lengths.cpu().numpy()

    def greedy(self) -> Recognizer:
        return self.with_decoder(Greedy())

    def exportable(self) -> Exportable:
        decoder = self.card["model"]["decoder"]
        return Exportable(LogProbs(self.net), LogProbs.outputs, "frames", decoder, self.specials, self.direction)

    def beam(self) -> tuple[str, dict[str, int]]:
        return "beam", {}

    def with_candidates(self) -> Recognizer:
        return self if self.decoder.has_posterior else self.with_decoder(CANDIDATES)

    def required_frames(self, text: str) -> int:
        return required_frames(self.target(text, "text"))

    def frames_for(self, width: int) -> int:
        height = self.preprocess(np.full((64, 64), 255, np.uint8)).shape[-2]
        image = torch.zeros(1, 1, height, width, device=self.device)
        with self.exact():
            return int(self.net(image, torch.tensor([width], device=self.device))[1])
