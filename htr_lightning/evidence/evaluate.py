"""Evaluate a checkpoint on a split, returning a prediction for each line and the total edit counts."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.build import check_whole, data_for
from htr_lightning.card import figure_card
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.pack import Pack
from htr_lightning.data.sample import Sample
from htr_lightning.data.sampler import BucketBatchSampler
from htr_lightning.errors import InputError
from htr_lightning.metrics.confidence import MEASURES, risk_at
from htr_lightning.metrics.conventions import CONVENTIONS, by_convention
from htr_lightning.metrics.edits import EditTotals, line_counts, total
from htr_lightning.metrics.significance import Intervals, intervals
from htr_lightning.output import replacing, writing
from htr_lightning.reading.journal import Journal
from htr_lightning.reading.open import load
from htr_lightning.reading.reader import Reader
from htr_lightning.reading.voting import Ensemble
from htr_lightning.transcription import (
    Prediction,
    Transcriber,
    Transcription,
    prediction,
    trials_by_level,
    write_predictions,
)

T = TypeVar("T")


class Line(NamedTuple):
    """The id, reference and group of an evaluated line."""

    id: str
    reference: str
    group: str


class Evaluation(NamedTuple):
    """The predictions for a split, in the order of its lines, and the total edit counts."""

    predictions: list[Prediction]
    totals: EditTotals

    @property
    def cer(self) -> float:
        """The character error rate: edits divided by reference characters, over the whole split."""
        return self.totals.cer

    @property
    def wer(self) -> float:
        """The word error rate: word edits divided by reference words, over the whole split."""
        return self.totals.wer

    @property
    def intervals(self) -> Intervals:
        """The 95 % confidence intervals of the CER and the WER over groups; see `metrics.significance`."""
        return intervals(_counts(self.predictions), [one.group for one in self.predictions])

    @property
    def conventions(self) -> dict[str, float]:
        """The error rates by other conventions; see `metrics.conventions`."""
        return by_convention([p.reference for p in self.predictions], [p.hypothesis for p in self.predictions])


def evaluate_reader(checkpoint: Reader | str | Path, overrides: Sequence[str] = (), split: str = "test") -> Evaluation:
    """Evaluate a checkpoint on a split of the data set it was trained on, or of the data set selected by `overrides`.

    Args:
        checkpoint: path to a checkpoint, or a reader returned by `htr_lightning.load`.
        overrides: data overrides as for `htr evaluate`, e.g. data=copiste data.root=FOLDER.
        split: train, val or test.

    Raises:
        InputError: if the checkpoint or the data cannot be read.
    """
    reader = checkpoint if isinstance(checkpoint, Reader) else load(checkpoint)
    check_whole(overrides, split)
    return evaluate(reader.transcriber, data_for(reader.transcriber, overrides), split)


def evaluate(
    recognizer: Transcriber,
    data: LineDataModule,
    split: str = "test",
    advance: Callable[[int], None] = lambda lines: None,
    journal: Journal | None = None,
) -> Evaluation:
    """Evaluate a recognizer on a split, transcribing each line once as `htr transcribe` does.

    Args:
        recognizer: recognizer in evaluation mode, on the device to use.
        data: data set to evaluate on; see `build.data_for`.
        split: train, val or test.
        advance: progress callback, called with the number of lines just processed.
        journal: results of an interrupted evaluation under the same conditions, which goes on.

    Raises:
        InputError: if a line cannot be read; the message names the line.
    """
    found = read_split(recognizer, recognizer.read, data, split, advance, *_journaled(journal, split))
    return compare(found)


def evaluate_into(
    folder: Path,
    recognizer: Transcriber,
    data: LineDataModule,
    split: str,
    about: dict[str, Any],
    advance: Callable[[int], None],
    journal: Journal | None = None,
) -> Evaluation:
    """Evaluate a recognizer, and write the results to a folder (see `evaluate` and `write`).

    Args:
        folder: existing folder.
        recognizer, data, split, advance, journal: see `evaluate`.
        about: the conditions (see `conditions`), to which the date and the duration are added as `clock`.
    """
    started, start, cpu = datetime.now(UTC), time.perf_counter(), time.process_time()
    resumed = journal is not None and bool(journal.rows)  # other lines took time earlier
    found = evaluate(recognizer, data, split, advance, journal)
    about["clock"] = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": None if resumed else round(time.process_time() - cpu, 2),
    }
    write(folder, found, about)
    return found


def _journaled(
    journal: Journal | None, split: str
) -> tuple[dict[int, tuple[Line, Transcription]], Callable[[dict[int, tuple[Line, Transcription]]], None]]:
    """Return the lines of a split that are in a journal, and a function that adds others."""
    if journal is None:
        return {}, lambda batch: None
    rows = [row for row in journal.rows if row[0] == split]
    known = {
        index: (Line(*line), Transcription(text, confidence, (), tuple(words), tuple(characters)))
        for _, index, line, (text, confidence, words, characters) in rows
    }

    def keep(batch: dict[int, tuple[Line, Transcription]]) -> None:
        journal.add(
            [split, index, list(line), [read.text, read.confidence, read.words, read.characters]]
            for index, (line, read) in batch.items()
        )

    return known, keep


def compare(read: Sequence[tuple[Line, Transcription]]) -> Evaluation:
    """Compare transcriptions with the references of their lines."""
    predictions = [prediction(line.id, line.reference, line.group, one) for line, one in read]
    return Evaluation(predictions, total(_counts(predictions)))


def _counts(predictions: Sequence[Prediction]) -> list[EditTotals]:
    return [line_counts(one.reference, one.hypothesis) for one in predictions]


def read_split(
    recognizer: Transcriber,
    read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]],
    data: LineDataModule,
    split: str,
    advance: Callable[[int], None],
    known: Mapping[int, tuple[Line, T]] = MappingProxyType({}),
    keep: Callable[[dict[int, tuple[Line, T]]], None] = lambda batch: None,
) -> list[tuple[Line, T]]:
    """Apply a function of raw images to all lines of a split and return the results in order; see `evaluate`.

    Args:
        recognizer, data, split, advance: see `evaluate`.
        read: function of raw images.
        known: results that are known, by the index of the line.
        keep: function called with the results of each batch that is not known.
    """
    lines = data.lines(split)
    if data.pack is not None:
        for member in recognizer.members:  # raises an InputError if a member needs taller lines than the pack contains
            Pack(data.pack, split, member.preprocess)
    found = dict(known)
    for batch in BucketBatchSampler(lines.widths, data.max_lines, data.max_columns):
        if not all(index in known for index in batch.indices):
            samples = [lines.reader[index] for index in batch.indices]
            some = {
                index: (Line(sample.id, lines.texts[index], sample.group), one)
                for index, sample, one in zip(batch.indices, samples, _read(read, samples), strict=True)
            }
            keep(some)
            found |= some
        advance(len(batch.indices))
    return [found[index] for index in range(len(lines))]


def _read(read: Callable[[Sequence[UInt8[ndarray, "_ _"]]], Sequence[T]], samples: Sequence[Sample]) -> Sequence[T]:
    try:
        return read([sample.image for sample in samples])
    except ValueError as error:
        if len(samples) > 1:
            return [one for sample in samples for one in _read(read, [sample])]
        raise InputError(f"{samples[0].id}: {error}") from None


def confidence(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    """Return the measures of the confidences of lines, words and characters; see `metrics.confidence.DEFINITION`."""
    return {
        level: {name: measure(trials) for name, measure in MEASURES.items()}
        for level, trials in trials_by_level(predictions).items()
    }


KEPT = (0.5, 0.8, 0.9, 1.0)  # fractions of the text, surest lines first, whose errors are stated


def kept_risk(predictions: Sequence[Prediction]) -> dict[float, float]:
    """Return the errors per character among the surest lines that make up each of some fractions of the text."""
    lines = trials_by_level(predictions).get("line", [])
    return {share: risk_at(lines, share) for share in KEPT}


def conditions(
    recognizer: Transcriber, checkpoints: Sequence[str], data: LineDataModule, split: str, greedy: bool = False
) -> dict[str, Any]:
    """Describe the checkpoints, data and settings of an evaluation, as plain data for `metrics.json`."""
    ensemble = isinstance(recognizer, Ensemble)
    about: dict[str, Any] = {
        "checkpoint": list(checkpoints) if ensemble else checkpoints[0],
        "calibration": recognizer.calibration.numbers(),
        **figure_card(recognizer.members, checkpoints, data, split, greedy),
    }
    if isinstance(recognizer, Ensemble):
        about["ensemble"] = {"weights": recognizer.weights, "views": len(recognizer.views)}
    return about


def write(folder: Path, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """Write `predictions.jsonl` and `metrics.json` to a folder.

    Raises:
        InputError: if the folder cannot be written to.
    """
    predictions, totals = evaluation
    rates = {"cer": totals.cer, "wer": totals.wer, "line_accuracy": totals.line_accuracy}
    others = {name: {"value": rate, "definition": CONVENTIONS[name].definition}
              for name, rate in evaluation.conventions.items()}  # fmt: skip
    metrics = {
        **rates,
        **evaluation.intervals.to_plain(),
        **totals._asdict(),
        "confidence": confidence(predictions),
        "conventions": others,
        **about,
    }
    with writing(folder):
        write_predictions(folder, predictions)
    with replacing(folder / "metrics.json") as path:
        path.write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
