"""The base class of line recognizers: text direction, language models and the CTC loss."""

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from htr_lightning.data.batch import moved
from htr_lightning.decoder.ctc import BLANK
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer, TooFew
from htr_lightning.parameters import Weight
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import DIRECTIONS, logical, logical_order, visual, visual_alphabet
from htr_lightning.transcription import Interpreted, of_labels


class LineRecognizer(Recognizer):
    """A recognizer of text lines.

    Labels run from left to right: targets are in visual order, and hypotheses are converted back to logical order.

    Args:
        alphabet: characters that the recognizer can output.
        decoder: decoder that turns `scores` into hypotheses.
        shortcut_weight: weight of the CTC loss of each head except the main one.
        direction: base direction of lines that contain right-to-left letters; "ltr", "rtl", or "auto" for the
            direction of most letters in the line.
        others: arguments of `Recognizer`.
    """

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Decoder,
        shortcut_weight: Weight = 0.1,
        direction: str = "auto",
        **others: Any,
    ) -> None:
        if direction not in DIRECTIONS:
            raise InputError(f"model.direction={direction}: expected one of {', '.join(DIRECTIONS)}")
        super().__init__(alphabet, decoder, **others)
        self.codec = Codec(visual_alphabet(self.codec.alphabet, direction), self.specials)
        self.shortcut_weight = shortcut_weight
        self.direction = direction

    @abstractmethod
    def beam(self) -> tuple[str, dict[str, int]]: ...

    def visual(self, text: str) -> str:
        return visual(text, self.direction)

    def text(self, hypothesis: Hypothesis) -> str:
        return logical(self.codec.decode(hypothesis.ids), self.direction)

    def interpret(self, hypothesis: Hypothesis) -> Interpreted:
        order = logical_order(self.codec.decode(hypothesis.ids), self.direction)
        return of_labels(self.text(hypothesis), hypothesis, order)

    def target(self, text: str, sample: str) -> list[int]:
        """Return the label ids of a training text, ordered from left to right as in the image.

        Raises:
            InputError: if a character is not in the alphabet and `unknown` is "error".
        """
        return super().target(self.visual(text), sample)

    def known(self, text: str, sample: str) -> list[int]:
        """Return the label ids of a validation text, without characters outside the alphabet."""
        return self.codec.encode(self.codec.known(self.visual(text)), sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Recognizer`; also warn about texts whose logical order cannot be recovered from their visual order."""
        unknown = super().check_targets(ids, texts)
        ambiguous = [
            id
            for id, text in zip(ids, texts, strict=True)
            if (shown := self.visual(text)) is not text and logical(shown, self.direction) != text
        ]
        if ambiguous:
            warnings.warn(
                "some training texts look the same in a different logical order and will be transcribed in that order, "
                f"so the CER cannot reach 0 ({len(ambiguous)} of {len(ids)} texts; first: {ambiguous[0]})",
                stacklevel=2,
            )
        return unknown

    def ctc(
        self, heads: list[Float[Tensor, "B T C"]], frames: Int[Tensor, " B"], ids: list[str], targets: list[list[int]]
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the CTC losses of all heads, in nats per character.

        Lines with too few frames for their text are excluded, since their loss would be infinite, and recorded in
        `infeasible`.

        Args:
            heads: logits of each head.
            frames: number of frames of each line, on the CPU.
            ids, targets: ids and labels of the lines.
        """
        required = [required_frames(target) for target in targets]
        fits = fitting(ids, frames, required, self.infeasible)
        if not all(fits):
            kept = torch.tensor([row for row, fit in enumerate(fits) if fit], dtype=torch.long)
            heads, frames = [head[moved(kept, head.device)] for head in heads], frames[kept]
            targets = [target for target, fit in zip(targets, fits, strict=True) if fit]
        total = sum(map(len, targets))  # characters in the lines that are kept
        weights = [1.0] + [self.shortcut_weight] * (len(heads) - 1)
        losses = [w * ctc_loss(head, frames, targets) for w, head in zip(weights, heads, strict=True)]
        return torch.stack(losses).sum() / max(1, total)


def fitting(ids: list[str], frames: Int[Tensor, " B"], required: list[int], short: dict[str, TooFew]) -> list[bool]:
    """Return whether each line has enough frames for its text, and record the lines that do not.

    Args:
        ids: line ids.
        frames: number of frames that the network outputs for each image, on the CPU.
        required: number of frames that each text requires.
        short: lines recorded so far, by id; updated in place.
    """
    counts = frames.tolist()
    for id, count, needed in zip(ids, counts, required, strict=True):
        if needed > count:
            short.setdefault(id, TooFew(needed, count))
    return [needed <= count for needed, count in zip(required, counts, strict=True)]


def required_frames(target: list[int]) -> int:
    """Return the number of frames that CTC requires: one per label, plus one per blank between equal neighbours."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def ctc_loss(logits: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], targets: list[list[int]]) -> Float[Tensor, ""]:
    """Return the summed negative log-likelihood in nats, using float32 since half precision overflows on long lines.

    The sum over paths only visits the classes in each target: with thousands of characters, as in Chinese, it takes a
    quarter of the time. With deterministic algorithms (`trainer.deterministic`), it is computed on the CPU, because the
    gradient of PyTorch's CTC on GPUs is not reproducible.

    Args:
        logits: output of a head.
        lengths: number of frames of each line, on the CPU.
        targets: labels of each line.
    """
    if not targets:
        return logits.sum() * 0.0
    log_probs = logits.float().log_softmax(2)
    used = [[BLANK, *sorted(set(target))] for target in targets]
    most = max(map(len, used))
    classes = moved(torch.tensor([line + [BLANK] * (most - len(line)) for line in used]), logits.device)
    places = [{label: place for place, label in enumerate(line)} for line in used]
    labels = [[own[label] for label in target] for own, target in zip(places, targets, strict=True)]
    log_probs = log_probs.gather(2, classes[:, None].expand(-1, log_probs.shape[1], -1))
    if not torch.is_grad_enabled():
        return -_log_likelihoods(log_probs, lengths, labels).sum()
    # The gradient of torch's CTC loss is exp(log_probs) minus the posterior of each class, which is only correct below
    # a softmax over all classes of its input. A sum weighted by the posteriors has the gradient of the loss.
    leaf = log_probs.detach()
    if torch.are_deterministic_algorithms_enabled():
        leaf = leaf.cpu()
    loss = -_log_likelihoods(leaf.requires_grad_(), lengths, labels).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    padding = torch.arange(leaf.shape[1], device=leaf.device) >= moved(lengths, leaf.device)[:, None]
    posteriors = (leaf.detach().exp() - gradient).masked_fill(padding[:, :, None], 0.0)
    weighted = -(moved(posteriors, log_probs.device) * log_probs).sum()
    return moved(loss.detach(), log_probs.device) + weighted - weighted.detach()


def _log_likelihoods(
    log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], labels: Sequence[Sequence[int]]
) -> Float[Tensor, " B"]:
    """Return log p_ctc of the labels of each line in nats, summed over all paths (Graves et al., 2006, equation 3).

    It is -inf if the labels need more frames than the line has.
    """
    flat = moved(torch.tensor([label for line in labels for label in line], dtype=torch.long), log_probs.device)
    sizes = torch.tensor([len(line) for line in labels])  # on the CPU like the lengths, where PyTorch reads them
    losses = functional.ctc_loss(log_probs.transpose(0, 1), flat, lengths, sizes, blank=BLANK, reduction="none")
    return -losses
