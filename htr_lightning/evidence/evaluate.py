"""A checkpoint measured on a split: every line's prediction, and the counts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.pack import Pack
from htr_lightning.data.sample import Sample
from htr_lightning.data.sampler import BucketBatchSampler
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import calibration_error, character_trials, line_trial
from htr_lightning.metrics.edits import EditTotals, count_edits
from htr_lightning.output import writing
from htr_lightning.transcription import Prediction, Transcriber, Transcription

T = TypeVar("T")


def evaluate(
    recognizer: Transcriber,
    data: LineDataModule,
    split: str = "test",
    advance: Callable[[int], None] = lambda lines: None,
) -> tuple[list[Prediction], EditTotals]:
    """Every line of a split read once, as `htr transcribe` reads it, and the counts.

    Args:
        recognizer: in evaluation mode, on the device to use.
        data: see `data_for`.
        split: train, val or test.
        advance: called with the count of lines done, for a progress bar.

    Raises:
        InputError: a line cannot be read; it is named.
    """
    return measured(read_split(recognizer, recognizer.read, data, split, advance))


class Line(NamedTuple):
    """A line of a split that was read."""

    id: str
    reference: str
    group: str


def measured(read: Sequence[tuple[Line, Transcription]]) -> tuple[list[Prediction], EditTotals]:
    """What was read beside what stands there, and the counts."""
    predictions = [Prediction(line.id, line.reference, one.text, one.confidence, line.group) for line, one in read]
    return predictions, count_edits([one.reference for one in predictions], [one.hypothesis for one in predictions])


def read_split(
    recognizer: Transcriber,
    read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]],
    data: LineDataModule,
    split: str,
    advance: Callable[[int], None],
) -> list[tuple[Line, T]]:
    """What a function of raw images, of a recognizer, gives for every line of a split, in order; see `evaluate`."""
    lines = data.lines(split)
    if data.pack is not None:
        for member in recognizer.members:  # one may need higher lines than the first
            Pack(data.pack, split, member.preprocess)
    found: dict[int, tuple[Line, T]] = {}
    for batch in BucketBatchSampler(lines.widths, data.max_lines, data.max_columns):
        samples = [lines.reader[index] for index in batch.indices]
        for index, sample, one in zip(batch.indices, samples, _read(read, samples), strict=True):
            found[index] = Line(sample.id, lines.texts[index], sample.group), one
        advance(len(samples))
    return [found[index] for index in range(len(lines))]


def _read(read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]], samples: Sequence[Sample]) -> Sequence[T]:
    try:
        return read([sample.image for sample in samples])
    except ValueError as error:
        if len(samples) > 1:
            return [one for sample in samples for one in _read(read, [sample])]
        raise InputError(f"{samples[0].id}: {error}") from None


def calibration(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The expected calibration error of characters and of whole lines, see `metrics.calibration.DEFINITION`."""
    read = [(one.reference, one.hypothesis, one.confidence) for one in predictions]
    return {
        "ece": calibration_error([character_trials(*one) for one in read]),
        "line_ece": calibration_error([line_trial(*one) for one in read]),
    }


def write(folder: Path, predictions: Sequence[Prediction], totals: EditTotals, about: dict[str, Any]) -> None:
    """Write `predictions.jsonl` and `metrics.json`.

    Raises:
        InputError: the folder cannot be written.
    """
    rates = {"cer": totals.cer, "wer": totals.wer, "line_accuracy": totals.line_accuracy}
    metrics = {**rates, **totals._asdict(), **calibration(predictions), **about}
    with writing(folder):
        with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
            for prediction in predictions:
                file.write(json.dumps(prediction._asdict(), ensure_ascii=False) + "\n")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
