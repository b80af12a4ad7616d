"""What recognizers that write one label after the other share."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from htr_lightning.decoder.autoregressive import Beam, Greedy
from htr_lightning.decoder.rescoring import Rescoring
from htr_lightning.errors import InputError

IGNORED = -100  # label of padding: torch's own mark


def checked(decoder: Any, heads: bool = False) -> Greedy | Beam | Rescoring:
    """The decoder.

    Args:
        heads: whether there are CTC heads.

    Raises:
        InputError: it is one for frames.
    """
    if isinstance(decoder, Rescoring) and not heads:
        raise InputError(
            "decoder=rescoring: this model has no CTC heads; use model=hybrid, or model.net.ctc=true with "
            "model.ctc_weight=0.3"
        )
    if not isinstance(decoder, Greedy | Beam | Rescoring):
        raise InputError(
            f"decoder: a {type(decoder).__name__} is for frames; this model writes, use "
            "decoder=autoregressive_greedy or decoder=autoregressive_beam"
        )
    return decoder


def within(labels: list[int], decoder: Greedy | Beam | Rescoring, sample: str, unit: str) -> list[int]:
    """The labels of a line, where the decoder gives out as many.

    Raises:
        InputError: it ends lines before.
    """
    if len(labels) > decoder.max_length:
        raise InputError(
            f"{sample}: its text has {len(labels)} {unit}, but a line is ended after "
            f"decoder.max_length={decoder.max_length}; raise it, or cut the line"
        )
    return labels


def marked(
    targets: Sequence[list[int]], start: int, end: int, pad: int, device: torch.device
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """What the decoder is fed and what it should answer: each answer is the token that is fed next."""
    longest = max(map(len, targets)) + 1
    inputs = torch.full((len(targets), longest), pad, dtype=torch.long)
    labels = torch.full((len(targets), longest), IGNORED, dtype=torch.long)
    for row, target in enumerate(targets):
        inputs[row, : len(target) + 1] = torch.tensor([start, *target])
        labels[row, : len(target) + 1] = torch.tensor([*target, end])
    return inputs.to(device), labels.to(device)
