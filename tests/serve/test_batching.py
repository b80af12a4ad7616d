"""Every line gets its own outcome, in batches of limited size, by a limited number of threads."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy import ndarray

from htr_lightning.errors import InputError
from htr_lightning.serve.batching import Batcher
from htr_lightning.transcription import Transcription


class Recorder:
    """Reads an image as the value of its first pixel, and records batches and how many run at a time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches, self.running, self.most = seconds, [], 0, 0
        self._lock = threading.Lock()

    def read(self, images: Sequence[ndarray], n_best: int = 0, boxes: bool = False) -> list[Transcription]:
        with self._lock:
            self.batches.append([int(image[0, 0]) for image in images])
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        with self._lock:
            self.running -= 1
        if any(image.shape == (1, 1) for image in images):
            raise ValueError("too small")
        if n_best == 7:
            raise InputError("n_best=7: too many")
        return [Transcription(f"{image[0, 0]}/{n_best}", 1.0) for image in images]


def line(value: int, side: int = 2) -> ndarray:
    return np.full((side, side), value, np.uint8)


def test_each_line_gets_its_own_outcome() -> None:
    recorder = Recorder(0.002)
    rng = np.random.default_rng(0)

    async def client(number: int, batcher: Batcher) -> None:
        for _ in range(4):
            values = rng.integers(0, 256, rng.integers(0, 40)).tolist()
            n_best = number % 3
            found = await batcher.read([line(value) for value in values], n_best)
            assert [one.text for one in found if isinstance(one, Transcription)] == [f"{v}/{n_best}" for v in values]

    async def run() -> None:
        batcher = Batcher([recorder.read] * 3)
        await asyncio.gather(*(client(number, batcher) for number in range(20)))
        assert len(batcher) == 0
        batcher.close()

    asyncio.run(run())
    assert max(map(len, recorder.batches)) <= 16
    assert recorder.most == 3


def test_lines_of_several_clients_are_read_together_and_shared_out() -> None:
    recorder = Recorder(0.01)

    async def run() -> None:
        batcher = Batcher([recorder.read] * 2)
        await asyncio.gather(*(batcher.read([line(value)]) for value in range(8)))
        batcher.close()

    asyncio.run(run())
    assert [len(batch) for batch in recorder.batches] == [4, 4]


def test_a_worker_never_reads_in_two_threads() -> None:
    recorder = Recorder(0.005)

    async def run() -> None:
        batcher = Batcher([recorder.read])
        here = (asyncio.to_thread(batcher.read_here, [line(value)]) for value in range(4))
        await asyncio.gather(*here, *(batcher.read([line(value)]) for value in range(4)))
        batcher.close()

    asyncio.run(run())
    assert recorder.most == 1
    assert sorted(value for batch in recorder.batches for value in batch) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_image_that_is_no_line_spoils_no_other() -> None:
    async def run() -> list:
        batcher = Batcher([Recorder().read])
        found = await batcher.read([line(1), line(2, side=1), line(3)])
        batcher.close()
        return found

    assert asyncio.run(run()) == [Transcription("1/0", 1.0), "too small", Transcription("3/0", 1.0)]


def test_an_error_reaches_only_who_asked_for_it() -> None:
    async def run() -> list:
        batcher = Batcher([Recorder().read])
        found = await asyncio.gather(
            batcher.read([line(1)], 7), batcher.read([line(2)], 1), batcher.read([line(3)], 7), return_exceptions=True
        )
        batcher.close()
        return found

    first, second, third = asyncio.run(run())
    assert second == [Transcription("2/1", 1.0)]
    for error in (first, third):
        with pytest.raises(InputError, match="n_best=7"):
            raise error


def test_lines_of_a_request_that_has_ended_are_not_read() -> None:
    recorder = Recorder(0.1)

    async def run() -> None:
        batcher = Batcher([recorder.read], lines=1)
        first = asyncio.create_task(batcher.read([line(1)]))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.read([line(2), line(3)])
        assert await batcher.read([line(4)]) == [Transcription("4/0", 1.0)]
        await first
        batcher.close()

    asyncio.run(run())
    assert recorder.batches == [[1], [4]]
