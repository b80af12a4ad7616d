"""Hypotheses of a CTC beam, rescored by an autoregressive decoder."""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from htr_lightning.decoder.autoregressive import FrameScores, Greedy, Steps
from htr_lightning.decoder.ctc import BLANK
from htr_lightning.decoder.hypothesis import Hypothesis, check_counts
from htr_lightning.decoder.language import Automaton
from htr_lightning.decoder.prefix_beam import Frames, PrefixBeam
from htr_lightning.errors import InputError


class Prepared(NamedTuple):
    """What is searched, the same for any language model and weights; labels are those of the frames."""

    beam: Frames
    frames: FrameScores
    own: list[list[int]]  # labels that the autoregressive decoder gives each line on its own
    offset: int  # token of label 0


class Rescoring:
    """Two passes (Sainath et al., 2019, "Two-pass end-to-end speech recognition", arXiv:1908.10992): a prefix beam over
    the frames of a CTC head proposes candidates, the autoregressive decoder proposes one of its own, and both score
    each.

    The score of a candidate is ctc_weight * log p_ctc + (1 - ctc_weight) * log p_decoder, as in Watanabe et al. (2017,
    "Hybrid CTC/attention architecture for end-to-end speech recognition", section II-C), and what `PrefixBeam` adds for
    a language model.

    Args:
        width, top_labels, min_probability, prune_margin, alpha, beta: of the beam, see `PrefixBeam`.
        candidates: number of best hypotheses of the beam that are rescored.
        ctc_weight: in [0, 1].
        max_length: labels after which a line of the autoregressive decoder is ended.
    """

    inputs = "frames and steps"
    has_posterior = True

    def __init__(
        self,
        width: int,
        top_labels: int,
        min_probability: float,
        prune_margin: float,
        candidates: int,
        ctc_weight: float,
        max_length: int,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> None:
        if not 0 <= ctc_weight <= 1:
            raise InputError(f"decoder.ctc_weight={ctc_weight}: must be in [0, 1]")
        check_counts(candidates=candidates, max_length=max_length)
        self.beam = PrefixBeam(width, top_labels, min_probability, prune_margin, alpha, beta)
        self.greedy = Greedy(max_length)
        self.candidates, self.ctc_weight, self.max_length = candidates, ctc_weight, max_length

    def with_automaton(self, automaton: Automaton | None) -> "Rescoring":
        """See `PrefixBeam`."""
        other = copy.copy(self)
        other.beam = self.beam.with_automaton(automaton)
        return other

    def __call__(self, steps: Steps) -> list[Hypothesis]:
        """The best hypothesis of each line."""
        return [best[0] for best in self.n_best(steps, 1)]

    def n_best(self, steps: Steps, n: int) -> list[list[Hypothesis]]:
        """Up to `n` hypotheses of each line, at most `candidates` and the decoder's own, best first; their `log_prob`
        excludes the language model."""
        return self.search(self.prepare(steps), n)

    def prepare(self, steps: Steps) -> Prepared:
        """See `BeamDecoder`."""
        if steps.frames is None:
            raise InputError("decoder=rescoring: needs CTC heads; use decoder=autoregressive_beam")
        log_probs, lengths, _ = steps.frames
        own = [[token - steps.end for token in one.ids if token > steps.end] for one in self.greedy(steps)]
        frames = self.beam.prepare(log_probs.detach().float().cpu().numpy(), lengths.cpu().numpy())
        return Prepared(frames, steps.frames, own, steps.end)

    def search(self, prepared: Prepared, n: int) -> list[list[Hypothesis]]:
        """See `n_best`."""
        beam, frames, own, offset = prepared
        proposed = [
            self._with_own(candidates, labels)
            for candidates, labels in zip(self.beam.search(beam, self.candidates), own, strict=True)
        ]
        counts = torch.tensor([len(candidates) for candidates in proposed], device=frames.lengths.device)
        log_probs, lengths = (part.repeat_interleave(counts, 0) for part in (frames.log_probs, frames.lengths))
        likely = log_likelihoods(log_probs, lengths, [one.ids for candidates in proposed for one in candidates])
        by_ctc = iter(likely.masked_fill(likely.isnan(), -math.inf).tolist())
        by_decoder = frames.rescore([[[label + offset for label in one.ids] for one in some] for some in proposed])
        found = []
        for candidates, its in zip(proposed, by_decoder, strict=True):
            scored = [self._scored(one, next(by_ctc), p, offset) for one, p in zip(candidates, its, strict=True)]
            scored.sort(key=lambda one: -one.score)
            found.append([one for one in scored if one.score > -math.inf][:n] or scored[:1])
        return found

    def _with_own(self, candidates: list[Hypothesis], own: list[int]) -> list[Hypothesis]:
        """The candidates of the beam and the decoder's own, if that is a new one and allowed; their score is what the
        language model adds."""
        beam = [one._replace(score=one.score - one.log_prob if one.score > -math.inf else 0.0) for one in candidates]
        if any(own == one.ids for one in candidates):  # mostly: then the language model need not be asked
            return beam
        bonus = self.beam.bonus(own)
        return [*beam, Hypothesis(own, 0.0, bonus)] if bonus > -math.inf else beam

    def _scored(self, candidate: Hypothesis, ctc: float, decoder: float, offset: int) -> Hypothesis:
        """A candidate with the score of both, as tokens; minus infinity if CTC has no path for it."""
        score = -math.inf
        if min(ctc, decoder) > -math.inf:
            score = self.ctc_weight * ctc + (1 - self.ctc_weight) * decoder
        return Hypothesis([label + offset for label in candidate.ids], min(0.0, score), score + candidate.score)


def log_likelihoods(
    log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], labels: Sequence[Sequence[int]]
) -> Float[Tensor, " B"]:
    """log p_ctc of the labels of each line in nats, over all paths (Graves et al., 2006, equation 3); minus infinity
    where they need more frames than there are."""
    flat = torch.tensor([label for line in labels for label in line], dtype=torch.long, device=log_probs.device)
    sizes = torch.tensor([len(line) for line in labels], device=log_probs.device)
    losses = functional.ctc_loss(log_probs.transpose(0, 1), flat, lengths, sizes, blank=BLANK, reduction="none")
    return -losses
