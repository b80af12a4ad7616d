"""Transcription on several CPU cores."""

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
    """Yield one `read` function per CPU core, since the steps of an LSTM are too small to be split between cores.

    Each function has its own copy of the recognizers, because automata cache their lookups; weights are shared. On a
    GPU, there is a single function.

    Args:
        transcriber: recognizer or ensemble.
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


def _read(
    transcriber: Any, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0, boxes: bool = False
) -> list[Transcription]:
    torch.set_num_threads(1)  # the setting is per thread
    return transcriber.read(images, n_best, boxes)
