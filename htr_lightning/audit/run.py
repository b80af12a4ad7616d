"""Audit the data in a config; also report unreadable splits and texts that need more frames than the model has."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from rich.table import Table
from rich.text import Text

from htr_lightning import resolution
from htr_lightning.audit import faults as lines
from htr_lightning.audit.fault import CRITICAL, Fault
from htr_lightning.audit.faults import Audit
from htr_lightning.build import open_data
from htr_lightning.config import make
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.data.line_dataset import LineDataset
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError, printable
from htr_lightning.model.base import Recognizer
from htr_lightning.picture import augmentation_sheet
from htr_lightning.text.codec import alphabet_of

NO_SPLIT = "unreadable split"


class Subject(NamedTuple):
    """The data to audit, prepared for the model in the same config."""

    title: str
    data: LineDataModule
    readers: dict[str, Reader]
    faults: list[Fault]  # one for each split that cannot be read
    model: dict[str, Any]  # config of the model
    alphabet: list[str] | None  # characters to learn; None for the characters in the training texts
    strict: set[str]  # reader options set to "error" in the config and to "skip" here


def open_subject(overrides: Sequence[str] = (), augment: str | None = None) -> Subject:
    """Open the readers of a composed config with every "error" option set to "skip", so that all faults are found.

    Raises:
        InputError: if no override selects the data, or no split can be read.
    """
    data, settings, model = open_data(overrides, augment, lenient=True, one_pass=True, full=True)  # scans at full size
    readers, faults = {}, []
    for split in SPLITS:
        try:
            readers[split] = data.open(split)
        except InputError as error:
            faults.append(Fault(split, NO_SPLIT, str(error), split))
    if not readers:
        raise InputError(faults[0].detail)
    alphabet = None if settings.get("alphabet") is None else data.alphabet
    strict = {key for key in ("empty", "faulty") if settings["reader"].get(key) == "error"}
    return Subject(_title(overrides, settings), data, readers, faults, model, alphabet, strict)


def _title(overrides: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return the name of the data config or recipe, and where its lines come from."""
    given = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    name, folder = given.get("data", given.get("experiment", "")), settings.get("pack") or settings.get("root")
    if folder:
        return f"{name} in {Path(folder).resolve()}"
    if settings["reader"]["_target_"] == f"{Synthetic.__module__}.{Synthetic.__qualname__}":
        return f"{name}: synthetic lines, not scans"
    return f"{name} from {settings['repo']}" if settings.get("repo") else name


def audit(subject: Subject, advance: Callable[[int], None] = lambda lines: None) -> Audit:
    """Find faults in the data; see `faults.audit`."""
    data, readers = subject.data, subject.readers
    recognizer = _recognizer(subject)
    preprocess, by_width = recognizer.preprocess, cache(recognizer.frames_for)

    def frames(image: UInt8[ndarray, "H W"]) -> int:
        preprocess.check((image.shape[0], image.shape[1]))
        height, width = preprocess.geometry(preprocess.reduce(image)).shape
        return by_width(preprocess.width((height, width)))

    direction = subject.model.get("direction", "auto")
    found = lines.audit(
        readers, data.normalizer, preprocess, subject.alphabet, recognizer.required_frames, frames, direction, advance
    )
    return found._replace(faults=subject.faults + found.faults)


def critical_kinds(subject: Subject, found: Audit) -> list[str]:
    """Return the kinds of fault that stop training or invalidate its results.

    Lines that only the audit skips count as critical; lines that the config itself skips do not.
    """
    kinds = {*CRITICAL, NO_SPLIT}
    for left in found.skipped:
        if left.by in subject.strict:
            kinds.add(left.kind)
    return sorted(kinds & {fault.kind for fault in found.faults})


def record(found: Audit, critical: Sequence[str]) -> dict[str, Any]:
    """Return an audit as plain data for `--json`."""
    return {
        "splits": found.splits,
        "alphabet": found.alphabet,
        "unseen": found.unseen,
        "faults": [{"id": f.id, "kind": f.kind, "detail": f.detail} for f in found.faults],
        "skipped": [{"id": s.id, "kind": s.kind, "detail": s.detail} for s in found.skipped],
        "critical": list(critical),
        "notes": found.notes,
    }


def augmented(subject: Subject, count: int = 8, times: int = 3) -> UInt8[ndarray, "H W"] | None:
    """Return a sheet of training lines before and after augmentation, or None if there is nothing to show."""
    reader, augment = subject.readers.get("train"), subject.data.augment
    if reader is None or augment is None or not len(reader):
        return None
    places = np.linspace(0, len(reader) - 1, min(count, len(reader))).astype(int).tolist()
    before = [_levelled(subject.data.preprocess, reader[place].image) for place in places]
    after = [
        [augment(image, np.random.default_rng((subject.data.seed, epoch, place))) for epoch in range(times)]
        for image, place in zip(before, places, strict=True)
    ]
    return augmentation_sheet(before, after)


def _levelled(preprocess: Preprocess, image: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
    try:
        return preprocess.geometry(preprocess.reduce(image))
    except ValueError:  # too small or too wide, which is reported as a fault
        return image


def _recognizer(subject: Subject) -> Recognizer:
    """Return the recognizer that would be trained, at the resolution that suits its lines without augmentation."""
    normalizer, readers = subject.data.normalizer, subject.readers.values()
    known = alphabet_of(normalizer(text) for reader in readers for text in reader.texts)
    alphabet = sorted({*known, *(subject.alphabet or ())})
    recognizer: Recognizer = make(subject.model, "model")(alphabet=alphabet).eval()
    settings = subject.model["preprocess"]
    if reader := subject.readers.get("train"):
        lines = LineDataset(reader, subject.data.preprocess, normalizer)
        if chosen := resolution.choose(settings, recognizer, lines):
            recognizer.preprocess = make(settings | chosen.settings, "model.preprocess")
    return recognizer


def tables(found: Audit, critical: Sequence[str]) -> list[Table]:
    """Return tables for the terminal: the splits and, if there are faults, the number of faults of each kind."""
    splits = Table("split", "lines", "characters", "groups", "skipped", box=None)
    for split, its in found.splits.items():
        splits.add_row(split, *(f"{its[key]:,}" for key in ("lines", "characters", "groups", "skipped")))
    kinds = Table("fault", "count", "", box=None)
    for kind, count in Counter(fault.kind for fault in found.faults).items():
        kinds.add_row(Text(printable(kind)), f"{count:,}", "critical" if kind in critical else "")
    return [splits, kinds] if found.faults else [splits]
