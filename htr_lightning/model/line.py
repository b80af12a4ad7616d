"""What recognizers of lines share: the direction of the text, the readings of a decoder, and CTC as a loss."""

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from htr_lightning.decoder.ctc import Hypothesis, log_likelihoods
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer, readings
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import DIRECTIONS, logical, visual, visual_alphabet
from htr_lightning.transcription import Transcription


class LineRecognizer(Recognizer):
    """A recognizer of lines, whose labels run from left to right: targets are in visual order, and what is read is
    brought back to logical order.

    Args:
        alphabet: the characters it can read.
        decoder: turns what the network gives into hypotheses; what it is called with is `decoding`'s.
        shortcut_weight: weight of the CTC loss of every head but the reading one.
        direction: of the lines, where they have right-to-left letters: "ltr", "rtl", or "auto": that of most letters of
            a line.
        others: see `Recognizer`.
    """

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Callable[..., list[Hypothesis]],
        shortcut_weight: float = 0.1,
        direction: str = "auto",
        **others: Any,
    ) -> None:
        if direction not in DIRECTIONS:
            raise InputError(f"model.direction={direction}: use one of {', '.join(DIRECTIONS)}")
        super().__init__(alphabet, **others)
        self.codec = Codec(visual_alphabet(self.codec.alphabet, direction), self.specials)
        self.decoder: Any = decoder
        self.shortcut_weight = shortcut_weight
        self.direction = direction
        self.language: Language | None = None
        self.alternatives = 0  # readings to give of each line, of a decoder that has several
        self.infeasible: set[str] = set()  # ids of training lines that have fewer frames than their text needs

    @abstractmethod
    def decoding(self, output: Any) -> tuple[Any, ...]:
        """What the decoder is called with, of the network's output."""

    def target(self, text: str, sample: str) -> list[int]:
        """Label ids of a training text from the left of its image to the right.

        Raises:
            InputError: a character is not in the alphabet and `unknown` is "error".
        """
        return super().target(visual(text, self.direction), sample)

    def known(self, text: str, sample: str) -> list[int]:
        """Label ids of a validation text without the characters that the alphabet lacks."""
        return self.codec.encode(self.codec.known(visual(text, self.direction)), sample)

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

    def text(self, hypothesis: Hypothesis) -> str:
        """What a hypothesis says, in logical order."""
        return logical(self.codec.decode(hypothesis.ids), self.direction)

    def set_language(self, language: Language) -> None:
        """Have the decoder use a language model, a lexicon, or both; they are of texts in visual order."""
        self.language = language
        self.decoder.automaton = language.automaton(self.codec.alphabet)

    def decode(self, output: Any) -> list[Transcription]:
        return readings(self.decoder, self.decoding(output), self.alternatives, self._read, self.normalizer)

    def _read(self, hypothesis: Hypothesis) -> tuple[str, float]:
        return self.text(hypothesis), hypothesis.confidence

    def ctc(
        self, heads: list[Float[Tensor, "B T C"]], frames: Int[Tensor, " B"], ids: list[str], targets: list[list[int]]
    ) -> Float[Tensor, ""]:
        """CTC loss of all heads in nats per character, over the lines whose text fits their frames; the others are
        counted and named, since their loss would be infinite."""
        needed = [needed_frames(target) for target in targets]
        fits = fitting(ids, frames, needed, self.infeasible, "frames", "line is left out of the loss")
        kept = torch.tensor(fits, device=frames.device)
        targets = [target for target, fit in zip(targets, fits, strict=True) if fit]
        total = sum(map(len, targets))  # of the lines that count, as the loss is
        weights = [1.0] + [self.shortcut_weight] * (len(heads) - 1)
        losses = [w * ctc_loss(head[kept], frames[kept], targets) for w, head in zip(weights, heads, strict=True)]
        return torch.stack(losses).sum() / max(1, total)

    def on_train_epoch_end(self) -> None:
        found: list[set[str]] = [self.infeasible]
        if self.trainer.world_size > 1:  # a line may fall to another rank in the next epoch
            found = [set() for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(found, self.infeasible)
        self.log("train/infeasible_lines", float(len(set().union(*found))), sync_dist=True)


def fitting(
    ids: list[str], places: Int[Tensor, " B"], needed: list[int], seen: set[str], unit: str, fate: str
) -> list[bool]:
    """Whether the images have room for their texts, with a warning for each that has not, once.

    Args:
        ids: of the lines.
        places: that the network gives for each image.
        needed: those that each text needs.
        seen: ids that were named already; grows.
        unit: what a place is called.
        fate: what becomes of a line without room.
    """
    counts = places.tolist()  # once: it waits for the GPU
    for id, count, least in zip(ids, counts, needed, strict=True):
        if least > count and id not in seen:
            seen.add(id)
            warnings.warn(
                f"{id}: its text needs {least} {unit} but the image gives {count}; the {fate}: check its crop, or use "
                "a net with a finer stride",
                stacklevel=3,
            )
    return [least <= count for least, count in zip(needed, counts, strict=True)]


def needed_frames(target: list[int]) -> int:
    """Frames that CTC needs for a target: one a label, and a blank between equal neighbours."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def ctc_loss(logits: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], targets: list[list[int]]) -> Float[Tensor, ""]:
    """The summed negative log-likelihood in nats, in float32: half precision overflows over long lines."""
    if not targets:
        return logits.sum() * 0.0
    return -log_likelihoods(logits.float().log_softmax(2), lengths, targets).sum()
