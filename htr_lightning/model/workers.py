"""Reading on several cores."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.transcription import Read, Transcription


@contextmanager
def workers(transcriber: Any) -> Iterator[Sequence[Read]]:
    """One reading function per core on a CPU: the steps of an LSTM are too small to be shared between cores.

    Each has a copy of the recognizers, since automata cache what they have looked up; weights are shared.

    Args:
        transcriber: a recognizer or an ensemble.
    """
    cores = torch.get_num_threads()
    if cores == 1 or transcriber.members[0].device.type != "cpu":
        yield [transcriber.read]
        return
    tensors = [tensor for member in transcriber.members for tensor in (*member.parameters(), *member.buffers())]
    shared = {id(tensor): tensor for tensor in tensors}
    try:
        torch.set_num_threads(1)
        yield [partial(_read, copy.deepcopy(transcriber, dict(shared))) for _ in range(cores)]
    finally:
        torch.set_num_threads(cores)


def _read(transcriber: Any, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0) -> list[Transcription]:
    torch.set_num_threads(1)  # every thread has a setting of its own
    return transcriber.read(images, n_best)
