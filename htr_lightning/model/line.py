"""What recognizers of lines share: the direction of the text, a language model, and CTC as a loss."""

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.decoder.rescoring import log_likelihoods
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import DIRECTIONS, logical, visual, visual_alphabet


class LineRecognizer(Recognizer):
    """A recognizer of lines, whose labels run from left to right: targets are in visual order, and hypotheses are
    brought back to logical order.

    Args:
        alphabet: the characters it can read.
        decoder: see `Recognizer`.
        shortcut_weight: weight of the CTC loss of every head but the main one.
        direction: of lines that have right-to-left letters: "ltr", "rtl", or "auto" (that of most letters of the line).
        others: see `Recognizer`.
    """

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Decoder,
        shortcut_weight: float = 0.1,
        direction: str = "auto",
        **others: Any,
    ) -> None:
        if direction not in DIRECTIONS:
            raise InputError(f"model.direction={direction}: use one of {', '.join(DIRECTIONS)}")
        super().__init__(alphabet, decoder, **others)
        self.codec = Codec(visual_alphabet(self.codec.alphabet, direction), self.specials)
        self.shortcut_weight = shortcut_weight
        self.direction = direction
        self.infeasible: set[str] = set()  # ids of training lines that have fewer frames than their text needs

    @abstractmethod
    def beam(self) -> tuple[str, dict[str, int]]: ...

    def visual(self, text: str) -> str:
        return visual(text, self.direction)

    def text(self, hypothesis: Hypothesis) -> str:
        return logical(self.codec.decode(hypothesis.ids), self.direction)

    def target(self, text: str, sample: str) -> list[int]:
        """Label ids of a training text from the left of its image to the right.

        Raises:
            InputError: a character is not in the alphabet and `unknown` is "error".
        """
        return super().target(self.visual(text), sample)

    def known(self, text: str, sample: str) -> list[int]:
        """Label ids of a validation text without the characters that are not in the alphabet."""
        return self.codec.encode(self.codec.known(self.visual(text)), sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Recognizer`; warns of texts that would be read in another logical order that looks the same."""
        unknown = super().check_targets(ids, texts)
        ambiguous = [
            id
            for id, text in zip(ids, texts, strict=True)
            if (shown := self.visual(text)) is not text and logical(shown, self.direction) != text
        ]
        if ambiguous:
            warnings.warn(
                f"{len(ambiguous)} of {len(ids)} training texts (first: {ambiguous[0]}) look the same in "
                "another logical order and will be read in that order; their CER cannot reach 0",
                stacklevel=2,
            )
        return unknown

    def ctc(
        self, heads: list[Float[Tensor, "B T C"]], frames: Int[Tensor, " B"], ids: list[str], targets: list[list[int]]
    ) -> Float[Tensor, ""]:
        """CTC loss of all heads in nats per character, over the lines whose text fits their frames; the others are
        counted and named, since their loss would be infinite."""
        required = [required_frames(target) for target in targets]
        fits = fitting(ids, frames, required, self.infeasible, "line is excluded from the loss")
        kept = torch.tensor(fits, device=frames.device)
        targets = [target for target, fit in zip(targets, fits, strict=True) if fit]
        total = sum(map(len, targets))  # of the lines that count, as for the loss
        weights = [1.0] + [self.shortcut_weight] * (len(heads) - 1)
        losses = [w * ctc_loss(head[kept], frames[kept], targets) for w, head in zip(weights, heads, strict=True)]
        return torch.stack(losses).sum() / max(1, total)

    def on_train_epoch_end(self) -> None:
        found: list[set[str]] = [self.infeasible]
        if self.trainer.world_size > 1:  # a line may be on another rank in the next epoch
            found = [set() for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(found, self.infeasible)
        self.log("train/infeasible_lines", float(len(set().union(*found))), sync_dist=True)


def fitting(
    ids: list[str], frames: Int[Tensor, " B"], required: list[int], warned: set[str], consequence: str
) -> list[bool]:
    """Whether each line has enough frames for its text, with one warning for each that does not.

    Args:
        ids: of the lines.
        frames: that the network gives for each image.
        required: frames that each text needs.
        warned: ids already warned about; extended in place.
        consequence: what happens to a line with too few.
    """
    counts = frames.tolist()  # once: it waits for the GPU
    for id, count, needed in zip(ids, counts, required, strict=True):
        if needed > count and id not in warned:
            warned.add(id)
            warnings.warn(
                f"{id}: its text needs {needed} frames but the image gives {count}; the {consequence}: check its crop, "
                "or use a net with a finer stride",
                stacklevel=3,
            )
    return [needed <= count for needed, count in zip(required, counts, strict=True)]


def required_frames(target: list[int]) -> int:
    """Frames that CTC needs for a target: one per label, and a blank between equal neighbours."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def ctc_loss(logits: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], targets: list[list[int]]) -> Float[Tensor, ""]:
    """The summed negative log-likelihood in nats, in float32: half precision overflows over long lines."""
    if not targets:
        return logits.sum() * 0.0
    return -log_likelihoods(logits.float().log_softmax(2), lengths, targets).sum()
