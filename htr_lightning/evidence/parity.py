"""Export a checkpoint, and measure on the same lines what the exported file changes."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray

from htr_lightning.card import describe
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.sampler import BucketBatchSampler
from htr_lightning.decoder.autoregressive import Steps
from htr_lightning.export import runtime
from htr_lightning.export.build import CALIBRATION_LINES
from htr_lightning.export.runtime import ExportedRecognizer
from htr_lightning.metrics.edits import EditTotals, count_edits
from htr_lightning.metrics.significance import Difference, cer_difference
from htr_lightning.model.base import Recognizer
from htr_lightning.pretrained import locate

SPEED_LINES = 64  # of which the speed is measured
ROUNDS = 5  # of which the median is reported
BATCHES = (1, 16)


class Speed(NamedTuple):
    """How fast lines are read, without preprocessing, and what a process that reads takes."""

    lines_per_second: dict[str, float]  # by batch size and threads
    latency_ms: dict[str, float]  # of single lines on one thread
    start_seconds: float  # from the start of the process to the first text
    memory_mb: float  # maximum resident memory of the process
    file_mb: float


class Parity(NamedTuple):
    """What an export changes on a set of lines."""

    target: str
    lines: int
    data: dict[str, Any]
    largest_difference: float  # of a log-probability
    other_texts: int
    in_batches: int  # lines whose text differs if they are read in a padded batch
    before: EditTotals
    after: EditTotals
    difference: Difference
    speed: dict[str, Speed]  # of the checkpoint ("torch") and of the file

    def fault(self, budget: float) -> str | None:
        """Return why the export is not good enough, or None.

        Args:
            budget: CER that may be lost, in percentage points.
        """
        if self.target in ("onnx", "openvino") and self.other_texts:
            return f"{self.other_texts} of {self.lines} lines read differently, though the weights are the same"
        if self.difference.high is None:
            return f"{self.lines} lines are too few to say how much the CER changes"
        if 100 * self.difference.high > budget:
            return (
                f"the CER changes by {100 * self.difference.value:+.2f} points and by up to "
                f"{100 * self.difference.high:+.2f} (95%), more than --budget {budget:g}"
            )
        return None

    def to_plain(self) -> dict[str, Any]:
        """Return the result as plain data."""
        plain = self._asdict() | {"difference": self.difference._asdict()}
        for name in ("before", "after"):
            totals: EditTotals = getattr(self, name)
            plain[name] = totals._asdict() | {"cer": totals.cer}
        return plain | {"speed": {name: one._asdict() for name, one in self.speed.items()}}


def calibration_images(data: LineDataModule) -> list[ndarray]:
    """Return training lines of all widths, to measure activations on."""
    lines = data.lines("train")
    return [lines.reader[index].image for index in _spread(lines.widths, CALIBRATION_LINES)]


def measure(
    recognizer: Recognizer,
    checkpoint: str,
    path: Path,
    data: LineDataModule,
    split: str = "val",
    limit: int | None = None,
    advance: Callable[[int], None] = lambda lines: None,
) -> Parity:
    """Compare an exported file with the checkpoint that it was made from.

    Args:
        recognizer: the recognizer in the checkpoint, on the CPU.
        checkpoint: path to the checkpoint.
        path: path to the exported file.
        data: lines to compare them on.
        split: train, val or test.
        limit: maximum number of lines; None for all.
        advance: progress callback, called with the number of lines just processed.

    Raises:
        InputError: if the file or a line cannot be read.
    """
    exported = runtime.load(path, "cpu" if recognizer.device.type == "cpu" else "auto")
    eager = _eager(recognizer, exported)
    lines = data.lines(split)
    count = len(lines) if limit is None else min(limit, len(lines))
    texts: dict[int, tuple[str, str, str]] = {}
    largest = 0.0
    for batch in BucketBatchSampler(lines.widths[:count], data.max_lines, data.max_columns):
        prepared = exported.prepare_batch([lines.reader[index].image for index in batch.indices])
        found = exported.scores(*prepared)
        together = exported.scores(*prepared, alone=False) if exported.padded else found
        with recognizer.exact():
            if isinstance(eager, ExportedRecognizer):
                expected: tuple[Any, ...] = eager.scores(*prepared)
                largest = max(largest, _largest(expected, found))
            else:
                expected = eager.scores(eager.net(*map(torch.from_numpy, prepared)))
                largest = max(largest, _largest_of_steps(expected[0], found[0]))
            read = [exported.decode(scores, prepared[0]) for scores in (expected, found, together)]
        for index, *each in zip(batch.indices, *read, strict=True):
            texts[index] = (each[0].text, each[1].text, each[2].text)
        advance(len(batch.indices))
    references = [lines.texts[index] for index in range(count)]
    before, after, padded = zip(*(texts[index] for index in range(count)), strict=True)
    return Parity(
        exported.card["export"]["target"],
        count,
        describe(data, split),
        largest,
        sum(a != b for a, b in zip(before, after, strict=True)),
        sum(a != b for a, b in zip(after, padded, strict=True)),
        count_edits(references, before),
        count_edits(references, after),
        cer_difference(references, before, after, lines.reader.groups[:count]),
        _speeds(
            eager,
            exported,
            checkpoint,
            path,
            [lines.reader[index].image for index in _spread(lines.widths[:count], SPEED_LINES)],
        ),
    )


def _eager(recognizer: Recognizer, exported: ExportedRecognizer) -> Recognizer | ExportedRecognizer:
    """Return what reads in PyTorch with the part of the checkpoint that was exported, which is half of a hybrid."""
    exportable = recognizer.exportable()
    if exportable.steps:
        return recognizer
    net = exportable.net.eval()

    def run(images: ndarray, widths: ndarray) -> list[ndarray]:
        with recognizer.exact():
            return [one.numpy() for one in _tuple(net(torch.from_numpy(images), torch.from_numpy(widths)))]

    eager = exported.copied()
    eager.run, eager.alone = run, False
    return eager


def _tuple(output: Any) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _largest(expected: Sequence[ndarray], found: Sequence[ndarray]) -> float:
    """Return the largest difference between scores, in the frames of each line."""
    if len(expected) == 1:
        return float(np.abs(expected[0] - found[0]).max())
    pairs = zip(expected[0], found[0], expected[1].tolist(), strict=True)
    return max(float(np.abs(a[:frames] - b[:frames]).max()) for a, b, frames in pairs)


def _largest_of_steps(expected: Steps, found: Steps) -> float:
    """Return the largest difference between log-probabilities along the greedy hypothesis of each line."""
    tokens, largest = expected.start, 0.0
    states = [expected.begin(), found.begin()]
    while (running := tokens != expected.end).any():
        ours, states[0] = expected.step(tokens, states[0])
        theirs, states[1] = found.step(tokens, states[1])
        different = running[:, None] & (ours != theirs)  # equal where both are -inf
        largest = max(largest, float(np.abs(ours[different] - theirs[different]).max(initial=0.0)))
        tokens = np.where(running, ours.argmax(1), expected.end)
    return largest


def _spread(widths: Sequence[int], count: int) -> list[int]:
    """Return the indices of at most `count` lines of all widths, narrow ones first."""
    order = np.argsort(widths, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()


def _speeds(
    eager: Recognizer | ExportedRecognizer,
    exported: ExportedRecognizer,
    checkpoint: str,
    path: Path,
    images: list[ndarray],
) -> dict[str, Speed]:
    sides: dict[str, Recognizer | ExportedRecognizer] = {
        "torch": eager,
        exported.card["export"]["target"]: exported,
    }
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    latencies: dict[str, list[float]] = {name: [] for name in sides}
    with _threads(1):
        for size in BATCHES:
            batches = {
                n: [s.prepare_batch(images[i : i + size]) for i in range(0, len(images), size)]
                for n, s in sides.items()
            }
            for round in range(ROUNDS + 1):  # the first one warms up
                for name, side in sides.items():
                    taken = []
                    for batch in batches[name]:
                        start = time.perf_counter()
                        side.transcribe(*batch)
                        taken.append(time.perf_counter() - start)
                    if round:
                        rates[name].setdefault(f"batch {size}", []).append(len(images) / sum(taken))
                        latencies[name] += taken if size == 1 else []
    for round in range(ROUNDS + 1):
        for name, side in sides.items():
            with side.workers() as workers, ThreadPoolExecutor(2) as pool:
                halves = [images[number::2] for number in range(2)]
                start = time.perf_counter()
                list(pool.map(lambda read, some: [read([one]) for one in some], [*workers, *workers][:2], halves))
                if round:
                    rates[name].setdefault("two threads", []).append(len(images) / (time.perf_counter() - start))
    found = {}
    for (name, _), file in zip(sides.items(), (checkpoint, str(path)), strict=True):
        start_seconds, memory = _process(str(locate(file)))
        milliseconds = 1000 * np.percentile(latencies[name], [50, 99])
        found[name] = Speed(
            {key: statistics.median(values) for key, values in rates[name].items()},
            dict(zip(("p50", "p99"), milliseconds.tolist(), strict=True)),
            start_seconds,
            memory,
            os.path.getsize(locate(file)) / 1e6,
        )
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit PyTorch to a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


PROGRAM = """
import resource, sys, time
from pathlib import Path
import numpy as np
from htr_lightning import load
load(sys.argv[1], device="cpu").read(np.full((64, 512), 255, np.uint8))
end, status = time.time(), Path("/proc/self/status")
if status.exists():  # getrusage would include the memory of the process that this one was forked from
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    kilobytes = int(line.split()[1])
else:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(end, kilobytes)
"""


def _process(path: str) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first text, and its memory in MB."""
    start = time.time()
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True)
    end, kilobytes = map(float, done.stdout.split())
    return end - start, kilobytes / 1000
