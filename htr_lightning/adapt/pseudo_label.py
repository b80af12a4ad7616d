"""Pseudo-label unlabelled lines for self-training, keeping only confident transcriptions.

A model trained on pseudo-labelled and labelled lines, with augmentation and dropout, is a noisy student (Xie et al.,
2020, "Self-training with noisy student improves ImageNet classification", arXiv:1911.04252); for handwriting, see Wolf
and Fink (2022, "Self-training of handwritten word recognition for synthetic-to-real adaptation", arXiv:2206.03149).
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.build import data_for
from htr_lightning.convert import FORMATS, Row, file_name, rows_of
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.output import filling, writing
from htr_lightning.reading.journal import Journal
from htr_lightning.reading.sources import Source, find_sources
from htr_lightning.reading.transcribe import TranscribedLine, open_to_read, transcribe
from htr_lightning.transcription import Transcriber

KEPT = "kept"
EMPTY, UNSURE, UNREADABLE = "no text found", "below the threshold", "unreadable"


class PseudoLabel(NamedTuple):
    """The transcription of an unlabelled line, and whether the line is kept."""

    id: str
    group: str
    text: str
    confidence: float
    status: str = KEPT  # or the reason why the line is not kept


class Unlabelled(NamedTuple):
    """A set of unlabelled lines, all transcribed before the images of the lines to keep are loaded again."""

    labels: Callable[[Transcriber, Callable[[int], None], Journal | None], list[PseudoLabel]]
    samples: Callable[[Sequence[PseudoLabel]], Iterator[Sample]]  # yields the kept lines, given the labels of all lines
    size: int  # number of lines, or of files
    skipped: Counter[str]  # lines skipped by the reader, counted by kind
    notes: list[str]


def open_unlabelled(
    recognizer: Transcriber, lines: Sequence[str], splits: Sequence[str] | None = None, labelled: bool = False
) -> Unlabelled:
    """Open the sources of unlabelled lines given as arguments to `htr pseudo-label`.

    Args:
        recognizer: trained recognizer that will transcribe the lines.
        lines: paths or globs of images, folders, or PAGE or ALTO files; or data overrides, e.g. data=copiste.
        splits: splits to label if overrides are given; None for the training lines.
        labelled: whether labelled data will be included in the output.

    Raises:
        InputError: if files and overrides are mixed, or a file cannot be read.
    """
    named = [re.match(r"\+*data(\.\w+)*=", line) is not None for line in lines]
    if any(named) and not all(named):
        raise InputError(f"{lines[named.index(False)]}: not a data override; use either overrides or files, not both")
    if all(named):
        data = data_for(recognizer, lines, full=True, unlabelled=True)
        return lines_of_data(data, list(dict.fromkeys(splits or ["train"])))
    if splits:
        raise InputError(
            f"--split {splits[0]}: files have no splits; remove the option or select a data set with data=NAME"
        )
    sources, errors, notes = find_sources(lines)
    if errors:
        raise InputError(errors[0])
    found = lines_of_files(recognizer, sources)
    found.notes.extend(notes)
    if labelled:
        found.notes.append(
            "files are not compared with the labelled lines; leave out pages that contain labelled lines"
        )
    return found


def lines_of_data(data: LineDataModule, splits: Sequence[str]) -> Unlabelled:
    """Return the lines in the given splits of a data set, ignoring their references.

    Args:
        data: data set opened with `unlabelled=True`; see `build.data_for`.
        splits: any of train, val and test.
    """
    readers = [data.lines(split).reader for split in splits]

    def labels(
        recognizer: Transcriber, advance: Callable[[int], None], journal: Journal | None = None
    ) -> list[PseudoLabel]:
        found = chain.from_iterable(evaluate(recognizer, data, split, advance, journal)[0] for split in splits)
        return [_with_status(PseudoLabel(p.id, p.group, p.hypothesis, p.confidence)) for p in found]

    def samples(labels: Sequence[PseudoLabel]) -> Iterator[Sample]:
        indices = ((reader, index) for reader in readers for index in range(len(reader)))
        for (reader, index), label in zip(indices, labels, strict=True):
            if label.status == KEPT:
                yield reader[index]._replace(text=label.text)

    skipped = Counter(one.kind for reader in readers for one in reader.skipped)
    return Unlabelled(labels, samples, sum(map(len, readers)), skipped, [])


def lines_of_files(recognizer: Transcriber, sources: Sequence[Source]) -> Unlabelled:
    """Return the lines in image, PAGE and ALTO files (see `find_sources`), ignoring any existing text."""

    notes: list[str] = []

    def labels(
        recognizer: Transcriber, advance: Callable[[int], None], journal: Journal | None = None
    ) -> list[PseudoLabel]:
        known = {name: rows for name, *rows in journal.rows} if journal else {}
        found: list[PseudoLabel] = []
        texts = 0
        remaining = [source for source in sources if str(source.path) not in known]
        transcribed = groupby(transcribe(recognizer, remaining, advance=advance), key=lambda line: line.source)
        for source in sources:
            if str(source.path) in known:
                count, rows = known[str(source.path)]
                some = [PseudoLabel(*row) for row in rows]
                advance(1)
            else:
                lines = [line for line in next(transcribed)[1] if not line.is_empty_page]
                count = sum(bool(line.line and line.line.text.strip()) for line in lines)
                some = list(map(_label, lines))
                if journal:
                    journal.add([[str(source.path), count, some]])
            texts += count
            found += some
        if texts:
            notes.append(f"the existing text is ignored in {texts} of {len(found)} lines")
        return found

    def samples(labels: Sequence[PseudoLabel]) -> Iterator[Sample]:
        opened = chain.from_iterable(open_to_read(recognizer, source) for source in sources)
        for label, (_, image) in zip(labels, opened, strict=True):
            if label.status == KEPT:
                if image is None:
                    raise InputError(f"{label.id}: was transcribed but can no longer be read; run the command again")
                yield Sample(label.id, image, label.text, label.group)

    return Unlabelled(labels, samples, len(sources), Counter(), notes)


def _label(line: TranscribedLine) -> PseudoLabel:
    path = line.source.path
    label = PseudoLabel(line.name, path.stem if line.line else path.parent.name, "", 0.0, UNREADABLE)
    if line.transcription is None:
        return label
    text, confidence, *_ = line.transcription
    return _with_status(label._replace(text=text, confidence=confidence, status=KEPT))


def select(
    labels: Sequence[PseudoLabel], min_confidence: float | None = None, fraction: float | None = None
) -> list[PseudoLabel]:
    """Return the labels, with the status `UNSURE` for lines that are not confident enough to keep.

    Args:
        labels: labels in any order; lines without text are never kept.
        min_confidence: minimum confidence of a line.
        fraction: fraction of all lines to keep, most confident first; ties are broken by id.
    """
    accepted = [
        index
        for index, label in enumerate(labels)
        if label.status == KEPT and label.confidence >= (min_confidence or 0.0)
    ]
    if fraction is not None:
        accepted.sort(key=lambda index: (-labels[index].confidence, labels[index].id))
        accepted = accepted[: math.ceil(fraction * len(labels))]
    kept = set(accepted)
    return [
        label if index in kept or label.status != KEPT else label._replace(status=UNSURE)
        for index, label in enumerate(labels)
    ]


def write(
    unlabelled: Unlabelled,
    labels: Sequence[PseudoLabel],
    file_format: str,
    folder: Path,
    about: dict[str, Any],
    labelled: LineDataModule | None = None,
    advance: Callable[[int], None] = lambda lines: None,
) -> Counter[str]:
    """Write the kept lines as the training split of a data set.

    All labels are written to `pseudo_labels.tsv`, and the settings and counts to `pseudo.json`.

    Args:
        unlabelled: lines that the labels belong to.
        labels: labels of all lines; see `select`.
        file_format: output format, a key of `convert.FORMATS`.
        folder: output folder, which must be empty.
        about: settings to store in `pseudo.json` along with the counts.
        labelled: labelled data whose lines in all splits are also written, with their references.
        advance: progress callback, called with the number of lines just processed.

    Returns:
        The number of lines with each status.

    Raises:
        InputError: if no line is kept, a kept line also belongs to the labelled data, or a file cannot be written.
    """
    counts = Counter(label.status for label in labels)
    if not counts[KEPT]:
        reasons = ", ".join(f"{status}: {count}" for status, count in counts.items())
        highest = max((label.confidence for label in labels), default=0.0)
        raise InputError(f"no lines to keep ({reasons}; highest confidence {highest:.3f}); lower --min-confidence "
                         "or raise --fraction")  # fmt: skip
    taken: Counter[str] = Counter()
    others: Iterable[Row] = ()
    if labelled is not None:
        known = {id: split for split in SPLITS for id in labelled.lines(split).reader.ids}
        if twice := next((label for label in labels if label.status == KEPT and label.id in known), None):
            raise InputError(
                f"{twice.id}: also in the {known[twice.id]} split of the labelled data; separate the labelled and "
                "unlabelled lines with data.subset or --split"
            )
        others = rows_of(labelled, SPLITS, taken, advance)
    rows = (Row("train", file_name(sample.id, taken), sample) for sample in unlabelled.samples(labels))
    record = {"lines": len(labels), **about, "status": dict(counts)}
    with filling(folder) as inside, writing(folder):
        FORMATS[file_format](chain(_advancing(rows, advance), others), inside)  # train first: splits must be contiguous
        with open(inside / "pseudo_labels.tsv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["id", "group", "confidence", "status", "text"])
            for label in labels:
                table.writerow([label.id, label.group, f"{label.confidence:.4f}", label.status, label.text])
        (inside / "pseudo.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return counts


def _with_status(label: PseudoLabel) -> PseudoLabel:
    return label if label.text.strip() else label._replace(status=EMPTY)


def _advancing(rows: Iterable[Row], advance: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        advance(1)
