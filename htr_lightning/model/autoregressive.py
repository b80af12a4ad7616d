"""Checks and teacher forcing shared by autoregressive recognizers."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from htr_lightning.data.batch import moved
from htr_lightning.decoder.hypothesis import Decoder
from htr_lightning.errors import InputError

IGNORED = -100  # label of padding; PyTorch losses ignore it by default


@runtime_checkable
class StepDecoder(Decoder, Protocol):
    """A decoder whose input is `decoder.autoregressive.Steps`."""

    max_length: int  # maximum number of labels per line


def check_decoder(decoder: Decoder, has_ctc: bool = False) -> StepDecoder:
    """Return the decoder if an autoregressive model can use it.

    Args:
        decoder: decoder to check.
        has_ctc: whether the model also has CTC heads.

    Raises:
        InputError: if the decoder is made for another kind of model.
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
    """Return the labels of a training text, provided that the decoder can output them all.

    Args:
        labels: label ids of the text.
        max_length: maximum number of labels per line.
        sample: id of the line, for the error message.
        unit: what the labels are called in the error message, "characters" or "tokens".

    Raises:
        InputError: if there are more than `max_length` labels.
    """
    if len(labels) > max_length:
        raise InputError(
            f"{sample}: the text has {len(labels)} {unit}, more than decoder.max_length={max_length}; increase "
            "decoder.max_length, or split the line"
        )
    return labels


def teacher_forcing(
    targets: Sequence[list[int]], start: int, end: int, pad: int, device: torch.device
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Return decoder inputs (start token, then target) and labels (target, then end token), padded to equal length."""
    longest = max(map(len, targets)) + 1
    inputs = torch.full((len(targets), longest), pad, dtype=torch.long)
    labels = torch.full((len(targets), longest), IGNORED, dtype=torch.long)
    for row, target in enumerate(targets):
        inputs[row, : len(target) + 1] = torch.tensor([start, *target])
        labels[row, : len(target) + 1] = torch.tensor([*target, end])
    return moved(inputs, device), moved(labels, device)
