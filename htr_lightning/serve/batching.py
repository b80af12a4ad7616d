"""Dynamic batching: lines of several requests that come at nearly the same time are read together."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.reading.transcribe import Outcome, read_batch
from htr_lightning.transcription import Read, Transcription

WINDOW = 0.004  # seconds in which lines for a batch are collected
LINES = 16  # of a batch


class _Waiting(NamedTuple):
    image: UInt8[ndarray, "_ _"]
    n_best: int
    outcome: asyncio.Future[Outcome]


class Batcher:
    """A queue of lines, and threads that read them in batches, so that the event loop never waits for a network.

    Lines are shared out evenly among the idle threads: a page does not wait for one of them while others are idle.

    Args:
        workers: functions that read, one for each thread (see `Transcriber.workers`).
        window: seconds in which lines for a batch are collected, if the queue was empty.
        lines: maximum number of lines in a batch.
    """

    def __init__(self, workers: Sequence[Read], window: float = WINDOW, lines: int = LINES) -> None:
        self.window, self.lines, self.workers = window, lines, len(workers)
        self._first, self._lock = workers[0], Lock()
        self._idle = [self.read_here, *workers[1:]]  # the first one comes last, since other threads may be using it
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="read")
        self._queue: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()  # the loop itself keeps no reference to them

    def __len__(self) -> int:
        """The number of lines in the queue."""
        return len(self._queue)

    async def read(self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0) -> list[Outcome]:
        """Transcribe images of lines; return the reason as a string for each image that is not a line.

        Raises:
            InputError: if the decoder does not find that many alternatives.
        """
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(image, n_best, loop.create_future()) for image in images]
        self._queue.extend(waiting)
        if self._idle and self._timer is None:
            self._timer = loop.call_later(0 if len(self._queue) >= self.lines else self.window, self._start)
        return list(await asyncio.gather(*(one.outcome for one in waiting)))

    def read_here(
        self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0, boxes: bool = False
    ) -> list[Transcription]:
        """Transcribe images in the calling thread, which may be any but that of the event loop; see `Transcriber.read`.

        Decoders cache what they look up, so a worker must never read in two threads at once.
        """
        with self._lock:
            return self._first(images, n_best, boxes)

    def close(self) -> None:
        """Stop the threads, after what they are reading."""
        self._threads.shutdown()

    def _start(self) -> None:
        """Give lines to all idle workers; lines of requests that were cancelled in the meantime are left out."""
        self._timer = None
        self._queue = deque(one for one in self._queue if not one.outcome.done())
        while self._idle and self._queue:
            count = min(self.lines, math.ceil(len(self._queue) / len(self._idle)))
            batch = [self._queue.popleft() for _ in range(count)]
            task = asyncio.get_running_loop().create_task(self._read(self._idle.pop(), batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _read(self, worker: Read, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            for n_best, group in groupby(sorted(batch, key=lambda one: one.n_best), key=lambda one: one.n_best):
                lines = list(group)
                images = [(index, one.image) for index, one in enumerate(lines)]
                try:
                    found = dict(await loop.run_in_executor(self._threads, read_batch, worker, n_best, images))
                except Exception as error:  # whatever it is, it is raised where the lines are awaited
                    for one in lines:
                        if not one.outcome.done():
                            one.outcome.set_exception(error)
                    continue
                for index, one in enumerate(lines):
                    if not one.outcome.done():
                        one.outcome.set_result(found[index])
        finally:
            self._idle.append(worker)
            self._start()
