"""Run the parts of a transcription in several processes, on one machine or, with Ray, on several.

An engine only distributes parts: `shards.Job` transcribes and writes them, so that a part that is started twice does
no harm, and a process that is killed costs the part it was working on. Does not import torch.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import cv2

from htr_lightning.errors import InputError
from htr_lightning.reading.shards import Counts, Job, Part
from htr_lightning.transcription import Transcriber

TRIES = 3  # number of processes that may die of a part
RESERVED_CPUS = 0.8  # fraction that workers reserve; with all, Ray's own tasks would wait for them, and they for those

Done = tuple[Part, Counts]


def run(
    job: Job,
    parts: Sequence[Part],
    engine: str = "local",
    workers: int | None = None,
    advance: Callable[[int], None] = lambda files: None,
) -> Counts:
    """Transcribe the parts that have not been written, and return what all of the parts contain.

    Args:
        job: how the parts are transcribed.
        parts: parts of this machine; see `shards.prepare`.
        engine: "local", or "ray" for Ray Data.
        workers: number of processes; None for this one, which uses all cores, or with Ray for one per core.
        advance: progress callback, called with the number of files just finished.

    Raises:
        InputError: if a part cannot be written, or several processes die of the same part.
    """
    total, left = Counts(0, 0), []
    for part in parts:
        if job.is_done(part):
            total = total.plus(job.counts(part))
            advance(len(part.sources))
        else:
            left.append(part)
    if not left:
        done: Iterator[Done] = iter(())
    elif engine == "ray":
        done = with_ray(job, left, workers)
    else:
        done = in_this_process(job, left) if workers is None else in_processes(job, left, workers)
    for part, counts in done:
        total = total.plus(counts)
        advance(len(part.sources))
    return total


def in_this_process(job: Job, parts: Sequence[Part]) -> Iterator[Done]:
    """Transcribe parts one after another on all cores; yield each with its counts."""
    recognizer = job.load()
    for part in parts:
        yield part, job.transcribe(recognizer, part)


def in_processes(job: Job, parts: Sequence[Part], workers: int) -> Iterator[Done]:
    """Transcribe parts in several processes of one core each; yield each part with its counts when it is written.

    A process that dies is replaced, and its part is transcribed again.

    Raises:
        InputError: if a part cannot be written, or several processes die of the same part.
    """
    waiting, deaths = deque(parts), Counter[int]()
    running: dict[SpawnProcess, tuple[Connection, Part]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                process, connection = _start(job)
                running[process] = connection, waiting[0]
                _send(connection, waiting.popleft())
            ready = wait([connection for connection, _ in running.values()])
            for process, (connection, part) in list(running.items()):
                if connection not in ready:
                    continue
                try:
                    found = connection.recv()
                except (EOFError, ConnectionResetError):  # the process is dead
                    process.join()
                    del running[process]
                    deaths[part.number] += 1
                    if deaths[part.number] == TRIES:
                        raise InputError(
                            f"{part.name}: {TRIES} processes died of this part ({_death(process)}); use fewer "
                            "--workers if memory is short, or remove the file that cannot be read"
                        ) from None
                    print(f"note: {part.name}: its process died ({_death(process)}); it is transcribed again",
                          file=sys.stderr)  # fmt: skip
                    waiting.append(part)
                    continue
                if isinstance(found, InputError):
                    raise found
                yield part, found
                if waiting:
                    running[process] = connection, waiting[0]
                    _send(connection, waiting.popleft())
                else:
                    _send(connection, None)
                    process.join()
                    del running[process]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _start(job: Job) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()  # otherwise, the end of the process would go unnoticed
    return process, ours


def _send(connection: Connection, part: Part | None) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the process is dead, which is noticed when it should answer
        connection.send(part)


def _work(job: Job, connection: Connection) -> None:
    """Transcribe the parts that come through a connection, until None comes or the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent process as well, which ends this one
    _use_one_core()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent process is dead
        try:
            recognizer = job.load()
            while (part := connection.recv()) is not None:
                connection.send(job.transcribe(recognizer, part, parallel=False))
        except InputError as error:
            connection.send(error)


def _use_one_core() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, which is imported later
    cv2.setNumThreads(1)


def _death(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def with_ray(job: Job, parts: Sequence[Part], workers: int | None = None) -> Iterator[Done]:
    """Transcribe parts with Ray Data, on this machine or the cluster in RAY_ADDRESS; yield each with its counts.

    All machines must reach the files and the output folder under the same paths.

    Raises:
        InputError: if Ray is not installed, or a part cannot be written.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.exceptions import RayError
    except ImportError:
        raise InputError("--engine ray: needs Ray; install htr-lightning[ray], or use --workers") from None
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, logging_level="warning", log_to_driver=False)
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # it logs each plan and where its log is
    DataContext.get_current().enable_progress_bars = False
    try:
        cpus = ray.cluster_resources().get("CPU", 1)
        count = min(workers or max(1, int(cpus)), len(parts))
        items = [{"part": pickle.dumps(part)} for part in parts]
        found = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _RayWorker,
            fn_constructor_args=(job, os.getcwd()),
            batch_size=1,
            compute=ActorPoolStrategy(size=count),
            num_cpus=round(RESERVED_CPUS * min(1, cpus / count), 2),
            num_gpus=1 if job.device.startswith("cuda") else 0,
            max_restarts=-1,
            max_task_retries=TRIES,
        )
        by_number = {part.number: part for part in parts}
        for row in found.iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            yield by_number[row["number"]], Counts(row["lines"], row["faults"], row["first"] or None)
    except RayError as error:
        raise InputError(f"--engine ray: {' '.join(str(error).split())[-300:]}") from None
    finally:
        if started:
            ray.shutdown()


class _RayWorker:
    """A process of Ray that transcribes one part at a time."""

    def __init__(self, job: Job, folder: str) -> None:
        os.chdir(folder)  # paths may be relative
        _use_one_core()
        self.job = job
        self.recognizer: Transcriber | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        part = pickle.loads(batch["part"][0])
        counts, fault = Counts(0, 0), ""
        try:
            self.recognizer = self.recognizer or self.job.load()
            counts = self.job.transcribe(self.recognizer, part, parallel=False)
        except InputError as error:  # as an exception, it would arrive in a traceback
            fault = str(error)
        return {
            "number": [part.number],
            "lines": [counts.lines],
            "faults": [counts.faults],
            "first": [counts.first or ""],
            "error": [fault],
        }
