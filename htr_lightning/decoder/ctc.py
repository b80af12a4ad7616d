"""Decoding of connectionist temporal classification."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from htr_lightning.errors import InputError

BLANK = 0


class Hypothesis(NamedTuple):
    """Label ids, their natural log-probability given the image, and the score by which the decoder chose them."""

    ids: list[int]
    log_prob: float
    score: float

    @property
    def confidence(self) -> float:
        """Probability per label, in [0, 1]; that of reading nothing where there is no label."""
        return math.exp(self.log_prob / max(1, len(self.ids)))


def check_counts(**settings: int) -> None:
    """Refuse settings of a decoder that are no whole numbers above 0; they are named."""
    for name, value in settings.items():
        if value < 1:
            raise InputError(f"decoder.{name}={value}: give at least 1")
        if value != int(value):
            raise InputError(f"decoder.{name}={value}: give a whole number")


def collapse(path: Sequence[int]) -> list[int]:
    """The labels of a frame path: repeats merged, then blanks removed (the map B of Graves et al., 2006)."""
    return [label for i, label in enumerate(path) if label != BLANK and (i == 0 or label != path[i - 1])]


def log_likelihoods(
    log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"], labels: Sequence[Sequence[int]]
) -> Float[Tensor, " B"]:
    """log p_ctc of the labels of each line in nats, over all paths (Graves et al., 2006, equation 3); minus infinity
    where they need more frames than there are."""
    flat = torch.tensor([label for line in labels for label in line], dtype=torch.long, device=log_probs.device)
    sizes = torch.tensor([len(line) for line in labels], device=log_probs.device)
    losses = functional.ctc_loss(log_probs.transpose(0, 1), flat, lengths, sizes, blank=BLANK, reduction="none")
    return -losses


class Greedy:
    """Best-path decoding: the likeliest label of every frame (Graves et al., 2006, "Connectionist temporal
    classification"). The log-probability is that of the one path."""

    def __call__(self, log_probs: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]) -> list[Hypothesis]:
        best, labels = log_probs.max(dim=2)
        return [
            Hypothesis(collapse(path[:length]), log_prob := math.fsum(frames[:length]), log_prob)
            for path, frames, length in zip(labels.tolist(), best.tolist(), lengths.tolist(), strict=True)
        ]
