"""Handle signals within a context. Does not import torch, since Hydra's callbacks import it for every run."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def handled(names: Iterable[str], handler: Callable[[int, FrameType | None], Any]) -> Iterator[dict[int, Any]]:
    """Handle signals, and restore the handlers that they had before at the end.

    Args:
        names: names of the signals; those that the system lacks are left out.
        handler: function called with the number of the signal and the current frame.

    Yields:
        The handlers that the signals had before, by number; None if it was not set by Python.
    """
    before = {number: signal.signal(number, handler) for name in names if (number := getattr(signal, name, None))}
    try:
        yield before
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)
