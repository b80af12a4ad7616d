"""What autoregressive recognizers share."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from htr_lightning.decoder.hypothesis import Decoder
from htr_lightning.errors import InputError

IGNORED = -100  # label of padding, which torch's losses ignore


@runtime_checkable
class StepDecoder(Decoder, Protocol):
    """A decoder of `autoregressive.Steps`."""

    max_length: int  # labels after which a line is ended


def check_decoder(decoder: Decoder, has_ctc: bool = False) -> StepDecoder:
    """The decoder of an autoregressive model.

    Args:
        decoder: see `StepDecoder`.
        has_ctc: whether the model also has CTC heads.

    Raises:
        InputError: the decoder is for another kind of model.
    """
    if decoder.inputs == "frames and steps" and not has_ctc:
        raise InputError(
            "decoder=rescoring: this model has no CTC heads; use model=hybrid, or model.net.ctc=true with "
            "model.ctc_weight=0.3"
        )
    if decoder.inputs not in ("steps", "frames and steps"):
        raise InputError(
            f"decoder: {type(decoder).__name__} decodes {decoder.inputs}, but this model is autoregressive; use "
            "decoder=autoregressive_greedy or decoder=autoregressive_beam"
        )
    return cast(StepDecoder, decoder)


def check_length(labels: list[int], max_length: int, sample: str, unit: str) -> list[int]:
    """The labels of a training text.

    Raises:
        InputError: there are more than the decoder can output.
    """
    if len(labels) > max_length:
        raise InputError(
            f"{sample}: its text has {len(labels)} {unit}, but lines are ended after decoder.max_length={max_length}; "
            "raise it, or cut the line"
        )
    return labels


def teacher_forcing(
    targets: Sequence[list[int]], start: int, end: int, pad: int, device: torch.device
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """The inputs of the decoder and its labels: each label is the next input, the last one the end."""
    longest = max(map(len, targets)) + 1
    inputs = torch.full((len(targets), longest), pad, dtype=torch.long)
    labels = torch.full((len(targets), longest), IGNORED, dtype=torch.long)
    for row, target in enumerate(targets):
        inputs[row, : len(target) + 1] = torch.tensor([start, *target])
        labels[row, : len(target) + 1] = torch.tensor([*target, end])
    return inputs.to(device), labels.to(device)
