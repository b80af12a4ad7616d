"""Unlabelled lines with the texts that a checkpoint reads in them, where it is sure enough: self-training.

A student that learns from them with augmented images and dropout, beside the labelled lines, is a noisy student (Xie et
al., 2020, "Self-training with noisy student improves ImageNet classification", arXiv:1911.04252); for handwriting see
Wolf and Fink (2022, "Self-training of handwritten word recognition for synthetic-to-real adaptation",
arXiv:2206.03149).
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.convert import FORMS, Row, file_name, rows_of
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.model.base import Recognizer
from htr_lightning.output import writing
from htr_lightning.reading.transcribe import Source, open_lines, transcribe

KEPT = "kept"
EMPTY, UNSURE, FAULT, PAGE = "nothing read", "below the gate", "cannot be read", "a page rather than a line"


class Guess(NamedTuple):
    """What was read in an unlabelled line, and what becomes of it."""

    id: str
    group: str
    text: str
    confidence: float
    fate: str = KEPT  # or why it is left out


class Unlabelled(NamedTuple):
    """Lines to read: first all guesses, then, for those that pass, the images in the same order."""

    guesses: Callable[[Recognizer, Callable[[int], None]], list[Guess]]
    images: Callable[[Sequence[Guess]], Iterator[Sample]]  # of the guesses that are kept
    size: int  # number of lines


def lines_of_data(data: LineDataModule, splits: Sequence[str]) -> Unlabelled:
    """The lines of some splits, as they were scanned; their references are not looked at. Lines without one are kept;
    where training skips them and draws parts or splits from the others, they are left out here as well."""
    if isinstance(data.reader, partial):
        empty, taken = (data.reader.keywords.get(key) for key in ("empty", "splits"))
        named = not isinstance(taken, dict) or all(isinstance(value, str) for value in taken.values())
        if empty == "error" or (empty == "skip" and data.subset is None and named):
            data.reader = partial(data.reader, empty="keep")
    data.reduce_scans = False
    readers = [data.lines(split).reader for split in splits]

    def guesses(recognizer: Recognizer, advance: Callable[[int], None]) -> list[Guess]:
        found = chain.from_iterable(evaluate(recognizer, data, split, advance)[0] for split in splits)
        return [_judged(Guess(p.id, p.group, p.hypothesis, p.confidence)) for p in found]

    def images(guesses: Sequence[Guess]) -> Iterator[Sample]:
        places = ((reader, index) for reader in readers for index in range(len(reader)))
        for (reader, index), guess in zip(places, guesses, strict=True):
            if guess.fate == KEPT:
                yield reader[index]._replace(text=guess.text)

    return Unlabelled(guesses, images, sum(map(len, readers)))


def lines_of_files(sources: Sequence[Source]) -> Unlabelled:
    """The lines of images and of PAGE and ALTO files, see `find_sources`; texts in the files are not looked at."""

    def guesses(recognizer: Recognizer, advance: Callable[[int], None]) -> list[Guess]:
        found = []
        for reading in transcribe(recognizer, sources, advance=advance):
            path = reading.source.path
            guess = Guess(reading.name, path.stem if reading.line else path.parent.name, "", 0.0, FAULT)
            if reading.transcription is not None:
                text, confidence, _ = reading.transcription
                guess = _judged(guess._replace(text=text, confidence=confidence, fate=KEPT))
            found.append(guess._replace(fate=PAGE) if reading.note else guess)
        return found

    def images(guesses: Sequence[Guess]) -> Iterator[Sample]:
        opened = chain.from_iterable(map(open_lines, sources))
        for guess, (_, image) in zip(guesses, opened, strict=True):
            if guess.fate == KEPT:
                if image is None:
                    raise InputError(f"{guess.id}: was read and now cannot be opened; start again")
                yield Sample(guess.id, image, guess.text, guess.group)

    return Unlabelled(guesses, images, sum(source.lines for source in sources))


def gate(guesses: Sequence[Guess], least: float | None, share: float | None) -> list[Guess]:
    """The guesses, those that are not sure enough marked so.

    Args:
        guesses: in any order; what has no text is never kept.
        least: confidence that a line needs.
        share: of all lines, the surest are kept; of equally sure ones those whose id comes first.
    """
    asked = [index for index, guess in enumerate(guesses) if guess.fate == KEPT and guess.confidence >= (least or 0.0)]
    if share is not None:
        asked.sort(key=lambda index: (-guesses[index].confidence, guesses[index].id))
        asked = asked[: math.ceil(share * len(guesses))]
    kept = set(asked)
    return [
        guess if index in kept or guess.fate != KEPT else guess._replace(fate=UNSURE)
        for index, guess in enumerate(guesses)
    ]


def write(
    unlabelled: Unlabelled,
    guesses: Sequence[Guess],
    form: str,
    folder: Path,
    about: dict[str, Any],
    labelled: LineDataModule | None = None,
    advance: Callable[[int], None] = lambda lines: None,
) -> Counter[str]:
    """Write the kept lines as training lines of a data set, `guesses.tsv` of all that was read, and `pseudo.json`.

    Args:
        unlabelled: what was read.
        guesses: see `gate`.
        form: a key of `convert.FORMS`.
        folder: where to; it must be empty.
        about: what `pseudo.json` tells besides the counts.
        labelled: data whose training, validation and test lines are written beside, with their references.
        advance: called with the count of lines done, for a progress bar.

    Returns:
        How many lines were kept, and left out for each reason.

    Raises:
        InputError: no line is kept, or one of them has the id of a labelled one, which lines of files never have; or a
            file cannot be written.
    """
    counts = Counter(guess.fate for guess in guesses)
    if not counts[KEPT]:
        told = ", ".join(f"{count} {fate}" for fate, count in counts.items())
        surest = max((guess.confidence for guess in guesses), default=0.0)
        raise InputError(f"no line is kept ({told}; the surest has {surest:.3f}); lower --least, or raise --share")
    taken: Counter[str] = Counter()
    beside: Iterable[Row] = ()
    if labelled is not None:
        known = {id: split for split in SPLITS for id in labelled.lines(split).reader.ids}
        if twice := next((guess for guess in guesses if guess.fate == KEPT and guess.id in known), None):
            raise InputError(
                f"{twice.id}: is a {known[twice.id]} line of the labelled data, too; keep them apart by data.subset or "
                "--split"
            )
        beside = rows_of(labelled, SPLITS, taken, advance)
    rows = (Row("train", file_name(sample.id, taken), sample) for sample in unlabelled.images(guesses))
    FORMS[form](chain(_advancing(rows, advance), beside), folder)  # train first, each split in one piece
    record = {"lines": len(guesses), **about, "fates": dict(counts)}
    with writing(folder):
        with open(folder / "guesses.tsv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["id", "group", "confidence", "fate", "text"])
            for guess in guesses:
                table.writerow([guess.id, guess.group, f"{guess.confidence:.4f}", guess.fate, guess.text])
        (folder / "pseudo.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return counts


def _judged(guess: Guess) -> Guess:
    return guess if guess.text.strip() else guess._replace(fate=EMPTY)


def _advancing(rows: Iterable[Row], advance: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        advance(1)
