"""Recognition of lines by connectionist temporal classification."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.data.batch import Batch
from htr_lightning.decoder.ctc import BLANK, Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.model.base import Alternative, Recognizer, Transcription
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import DIRECTIONS, logical, visual, visual_alphabet

Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]


class CTCRecognizer(Recognizer):
    """Frame labels with a blank (Graves et al., 2006, "Connectionist temporal classification"); the blank is id 0.

    Frames run from left to right, so targets are in visual order; what is read is brought back to logical order.

    Args:
        alphabet: the characters it can read.
        net: called with the count of classes; maps images and widths to logits "B T C" and lengths "B", and has
            `heads` that gives the logits of every head, the reading one first.
        decoder: maps log-probabilities and lengths to one hypothesis a line.
        shortcut_weight: weight of the loss of every further head.
        direction: of the lines, where they have right-to-left letters: "ltr", "rtl", or "auto": that of most letters of
            a line.
        others: see `Recognizer`.
    """

    specials = ("<blank>",)

    def __init__(
        self,
        alphabet: Iterable[str],
        net: Callable[[int], nn.Module],
        decoder: Decoder,
        shortcut_weight: float = 0.1,
        direction: str = "auto",
        **others: Any,
    ) -> None:
        if direction not in DIRECTIONS:
            raise InputError(f"model.direction={direction}: use one of {', '.join(DIRECTIONS)}")
        super().__init__(alphabet, **others)
        self.codec = Codec(visual_alphabet(self.codec.alphabet, direction), self.specials)
        self.net = net(len(self.codec))
        self.decoder = decoder
        self.shortcut_weight = shortcut_weight
        self.direction = direction
        self.language: Language | None = None
        self.alternatives = 0  # readings to give of each line, of a decoder that has several
        self.infeasible: set[str] = set()  # ids of training lines that have fewer frames than their text needs

    def target(self, text: str, sample: str) -> list[int]:
        """Label ids of a training text from the left of its image to the right.

        Raises:
            InputError: a character is not in the alphabet and `unknown` is "error".
        """
        return super().target(visual(text, self.direction), sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Recognizer`; texts that would be read in another logical order that looks the same are counted."""
        unknown = super().check_targets(ids, texts)
        lost = [
            id
            for id, text in zip(ids, texts, strict=True)
            if (seen := visual(text, self.direction)) is not text and logical(seen, self.direction) != text
        ]
        if lost:
            warnings.warn(
                f"{len(lost)} of {len(ids)} training texts, first that of {lost[0]}, look the same in another logical "
                "order and will be read in that one; their CER cannot become 0",
                stacklevel=2,
            )
        return unknown

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """CTC loss in nats per character, over the lines whose text fits their frames; the others are counted and
        named, since their loss would be infinite."""
        targets = [self.target(text, id) for id, text in zip(batch.ids, batch.texts, strict=True)]
        heads, lengths = self.net.heads(batch.images, batch.widths)
        fits = [needed_frames(target) <= length for target, length in zip(targets, lengths.tolist(), strict=True)]
        self._name_infeasible(batch, targets, lengths, fits)
        kept = torch.tensor(fits, device=lengths.device)
        targets = [target for target, fit in zip(targets, fits, strict=True) if fit]
        total = sum(map(len, targets))  # of the lines that count, as the loss is
        weights = [1.0] + [self.shortcut_weight] * (len(heads) - 1)
        losses = [w * ctc_loss(head[kept], lengths[kept], targets) for w, head in zip(weights, heads, strict=True)]
        return torch.stack(losses).sum() / max(1, total)

    def summed_loss(
        self, output: tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]], batch: Batch
    ) -> tuple[Float[Tensor, ""], int]:
        """The CTC loss of the reading head over the lines whose text fits their frames, and their characters."""
        logits, lengths = output
        texts = [self.codec.known(visual(text, self.direction)) for text in batch.texts]
        targets = [self.codec.encode(text, id) for id, text in zip(batch.ids, texts, strict=True)]
        rows = [row for row, target in enumerate(targets) if needed_frames(target) <= lengths[row]]
        kept = [targets[row] for row in rows]
        return ctc_loss(logits[rows], lengths[rows], kept), sum(map(len, kept))

    def text(self, hypothesis: Hypothesis) -> str:
        """What a hypothesis says, in logical order."""
        return logical(self.codec.decode(hypothesis.ids), self.direction)

    def set_language(self, language: Language) -> None:
        """Have the decoder use a language model, a lexicon, or both; they are of texts in visual order."""
        self.language = language
        self.decoder.automaton = language.automaton(self.codec.alphabet)

    def decode(self, output: tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]) -> list[Transcription]:
        logits, lengths = output
        log_probs = logits.float().log_softmax(2)
        if not self.alternatives:
            return [Transcription(self.text(h), h.confidence) for h in self.decoder(log_probs, lengths)]
        read = []
        for some in self.decoder.n_best(log_probs, lengths, self.alternatives):
            different: dict[str, Alternative] = {}  # a space more at an end is no other text
            for one in some:
                text = self.normalizer(self.text(one))
                different.setdefault(text, Alternative(text, one.confidence, one.score))
            found = tuple(different.values())
            read.append(Transcription(found[0].text, found[0].confidence, found))
        return read

    def on_train_epoch_end(self) -> None:
        found: list[set[str]] = [self.infeasible]
        if self.trainer.world_size > 1:  # a line may fall to another rank in the next epoch
            found = [set() for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(found, self.infeasible)
        self.log("train/infeasible_lines", float(len(set().union(*found))), sync_dist=True)

    def _name_infeasible(self, batch: Batch, targets: list[list[int]], lengths: Tensor, fits: list[bool]) -> None:
        for id, target, length, fit in zip(batch.ids, targets, lengths.tolist(), fits, strict=True):
            if not fit and id not in self.infeasible:
                self.infeasible.add(id)
                warnings.warn(
                    f"{id}: its text needs {needed_frames(target)} frames but the image gives {length}; the line is "
                    "left out of the loss: check its crop, or use a net with a finer stride",
                    stacklevel=2,
                )


def needed_frames(target: list[int]) -> int:
    """Frames that CTC needs for a target: one a label, and a blank between equal neighbours."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def ctc_loss(logits: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], targets: list[list[int]]) -> Float[Tensor, ""]:
    """The summed negative log-likelihood in nats, in float32: half precision overflows over long lines."""
    if not targets:
        return logits.sum() * 0.0
    flat = torch.tensor([id for target in targets for id in target], dtype=torch.long, device=logits.device)
    sizes = torch.tensor([len(target) for target in targets], device=logits.device)
    log_probs = logits.float().log_softmax(2).transpose(0, 1)
    return functional.ctc_loss(log_probs, flat, lengths, sizes, blank=BLANK, reduction="sum")
