"""Ensembles, which combine the hypotheses of several recognizers or several views of a line."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.characters import Character
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.rover import Consensus, WeightedHypothesis, rover
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.model.base import Recognizer
from htr_lightning.model.workers import workers
from htr_lightning.net.view import View
from htr_lightning.transcription import Interpreted, Read, Transcription, finished, with_boxes

CANDIDATES = 8  # number of hypotheses per line and member
MIN_SHARE = 0.01  # minimum share of the posterior for a hypothesis to be aligned


class Ensemble:
    """An ensemble of recognizers of any kind, each of which transcribes every view of a line.

    Hypotheses are combined by `decoder.rover`, each weighted by its confidence times the member's weight. If a decoder
    finds several hypotheses with posteriors, they share this weight in proportion to their posteriors, so that other
    members decide where one member is uncertain. For this purpose, CTC models with a greedy decoder use beam search.

    Args:
        members: recognizers in eval mode, on the same device; the first one provides the normalizer and the card.
        names: names of the members, for error messages.
        views: number of views of each line (see `net.view`).
        single: whether each member uses its own decoder and contributes a single hypothesis per line.
        weights: weights of the members; None for equal weights.

    Raises:
        InputError: if some members read single characters and others read lines.
    """

    def __init__(
        self,
        members: Sequence[Recognizer],
        names: Sequence[str],
        views: int = 1,
        single: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.single_characters = members[0].single_characters
        if other := next((name for member, name in zip(members, names, strict=True)
                          if member.single_characters != self.single_characters), None):  # fmt: skip
            kind = "lines" if self.single_characters else "single characters"
            raise InputError(f"{other}: reads {kind}, unlike {names[0]}; combine checkpoints of the same kind")
        self.members = [member if single else member.with_candidates() for member in members]
        self.counts = [0 if single else _candidates(member) for member in self.members]
        self.views = [View(number) for number in range(views)]
        self.weights = [1.0] * len(members) if weights is None else list(weights)
        self.card: dict[str, Any] = members[0].card
        self.preprocess: Preprocess = members[0].preprocess
        self.normalizer = members[0].normalizer
        self.calibration = Calibration()

    @property
    def aligns(self) -> bool:
        """See `Transcriber`."""
        return any(member.aligns for member in self.members)

    def read(
        self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0, boxes: bool = False
    ) -> list[Transcription]:
        """Transcribe raw images; see `Transcriber.read`.

        Raises:
            InputError: if alternatives are requested.
        """
        if n_best:
            raise InputError(f"n_best={n_best}: an ensemble returns one transcription per line; use n_best=0")
        found = [self.finish(rover(line, self.weights)) for line in self.hypotheses(images)]
        return with_boxes(found, self.align(images, [one.text for one in found])) if boxes else found

    def align(self, images: Sequence[UInt8[ndarray, "_ _"]], texts: Sequence[str]) -> list[tuple[Character, ...]]:
        """See `Transcriber`; the first member that aligns does so."""
        member = next((member for member in self.members if member.aligns), self.members[0])
        return member.align(images, texts)

    def hypotheses(self, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[list[WeightedHypothesis]]:
        """Return the hypotheses for each line, from all members and views."""
        lines: list[list[WeightedHypothesis]] = [[] for _ in images]
        for number, (member, count) in enumerate(zip(self.members, self.counts, strict=True) if images else ()):
            batch, widths = member.prepare_batch(images)
            for view in self.views:
                read = member.transcribe(view(batch, widths), widths, count)
                for line, one in zip(lines, read, strict=True):
                    for text, confidence in shares(one):
                        text = self.normalizer(text)  # same Unicode form for all members, so that accents match
                        line.append(WeightedHypothesis(text, confidence / len(self.views), number))
        return lines

    def finish(self, consensus: Consensus) -> Transcription:
        """Return the transcription for a consensus, with normalised text and calibrated confidence."""
        return finished(Interpreted(*consensus), self.normalizer, self.calibration)

    def workers(self) -> AbstractContextManager[Sequence[Read]]:
        """See `Transcriber`."""
        return workers(self)


def _candidates(member: Recognizer) -> int:
    """Return the number of candidates per line; 0 for single characters, whose confidence is their posterior."""
    return CANDIDATES if member.decoder.has_posterior and not member.single_characters else 0


def shares(read: Transcription) -> list[tuple[str, float]]:
    """Return the alternative texts of a line, each with the line's confidence times its share of the posterior."""
    best = read.alternatives[0].score if read.alternatives else -math.inf
    if best == -math.inf:
        return [(read.text, read.confidence)]
    weights = [math.exp(one.score - best) for one in read.alternatives]
    total = math.fsum(weights)
    return [
        (one.text, read.confidence * weight / total)
        for one, weight in zip(read.alternatives, weights, strict=True)
        if weight > MIN_SHARE * total
    ]
