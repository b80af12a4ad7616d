"""Collect the results of a run: its predictions, which are made if necessary, and its lines, if they can be read."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.build import data_for
from htr_lightning.card import describe
from htr_lightning.data.files import file_hash
from htr_lightning.data.handwriting import measure
from htr_lightning.data.image import MIN_SIDE
from htr_lightning.data.paper import dark_on_light
from htr_lightning.data.preprocess import stretch
from htr_lightning.data.sample import Reader
from htr_lightning.data.writing import is_blank
from htr_lightning.errors import InputError
from htr_lightning.evidence import evaluate as evaluation
from htr_lightning.evidence.runs import Curve, load_card, load_curves, load_summary, predictions
from htr_lightning.output import make_folder
from htr_lightning.pretrained import locate
from htr_lightning.reading.open import load_all
from htr_lightning.transcription import PREDICTIONS, Prediction, Transcriber

MEASURED = 2000  # maximum number of lines whose contrast and slope are measured; each takes a few milliseconds


class Results(NamedTuple):
    """What is known of a run and of its reading of a split."""

    folder: Path
    predictions: list[Prediction]
    about: dict[str, Any]  # what the predictions depend on; contents of metrics.json, or the card in summary.json
    card: dict[str, Any]  # of the checkpoint; empty if it does not exist
    checkpoint: dict[str, Any]  # its path, SHA-256, size in bytes and number of weights; empty if it does not exist
    curves: dict[str, Curve]
    summary: dict[str, Any]
    reader: Reader | None  # lines of the predictions, in the same order
    note: str = ""  # why there is no reader


class Appearance(NamedTuple):
    """What a line looks like."""

    contrast: float  # grey levels between the paper and the darkest percentile
    slope: float  # degrees; positive if the line falls to the right


def open_results(
    folder: str | Path,
    split: str = "test",
    overrides: Sequence[str] = (),
    device: str = "auto",
    progress: Callable[[int], Callable[[int], None]] = lambda lines: lambda count: None,
) -> Results:
    """Collect the results of a run, evaluating its best checkpoint if its predictions are missing or older.

    Args:
        folder: run folder, or a folder written by `htr evaluate`.
        split: train, val or test.
        overrides: data overrides as for `htr evaluate`.
        device: device to evaluate on.
        progress: called with the number of lines to evaluate; returns a function to call with the number of lines done.

    Raises:
        InputError: if there is neither a checkpoint nor predictions, or a file or the data cannot be read.
    """
    folder = Path(folder)
    best = folder / "checkpoints" / "best.ckpt"
    is_run = best.is_file()
    place = _place(folder, split) if is_run else folder
    if not is_run and not (folder / PREDICTIONS).is_file():
        raise InputError(
            f"{folder}: contains neither checkpoints/best.ckpt nor {PREDICTIONS}; choose a run folder or a folder "
            "written by htr evaluate"
        )
    about = load_card(place)
    checkpoint = best if is_run else Path(str(np.ravel(about.get("checkpoint", ""))[0]))
    recognizer = load_all([str(checkpoint)], device) if locate(checkpoint).is_file() else None
    own = _about(locate(checkpoint), recognizer) if recognizer else {}
    stale = about.get("checkpoint_sha256", own.get("sha256")) != own.get("sha256")
    if is_run and recognizer and (overrides or stale or not (place / PREDICTIONS).is_file()):
        place = best.parent / f"evaluate-{split}"
        data = data_for(recognizer, overrides)
        about = evaluation.conditions(recognizer, [str(best)], data, split)
        make_folder(place)  # fail early, before the work starts
        about["overrides"] = list(overrides)
        evaluation.evaluate_into(place, recognizer, data, split, about, progress(about["data"]["lines"]))
    reader, note = _reader(recognizer, overrides, about, split)
    return Results(
        folder,
        predictions(place / PREDICTIONS),
        about,
        recognizer.card if recognizer else {},
        own,
        load_curves(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else {},
        load_summary(folder / "summary.json") if (folder / "summary.json").is_file() else {},
        reader,
        note,
    )


def _place(run: Path, split: str) -> Path:
    """Return the folder with the predictions of a run: its own, written when it was tested, or that of htr evaluate."""
    tested = split == "test" and (run / PREDICTIONS).is_file()
    return run if tested else run / "checkpoints" / f"evaluate-{split}"


def _about(path: Path, recognizer: Transcriber) -> dict[str, Any]:
    weights = getattr(recognizer, "parameters", None)  # exported recognizers have none
    count = sum(one.numel() for one in weights()) if weights else None
    return {"path": str(path), "sha256": file_hash(path), "bytes": path.stat().st_size, "weights": count}


def _reader(
    recognizer: Transcriber | None, overrides: Sequence[str], about: dict[str, Any], split: str
) -> tuple[Reader | None, str]:
    """Return the lines of a split if they are those of the predictions, or why there are none."""
    if recognizer is None:
        return None, "the checkpoint was not found"
    try:
        stored = () if overrides else _given(about)
        data = data_for(recognizer, overrides or stored, stored_in="metrics.json" if stored else "")
        split = about.get("split", split)
        if describe(data, split)["sha256"] != about.get("data", {}).get("sha256"):
            return None, "the data have changed since the evaluation"
        return data.lines(split).reader, ""
    except InputError as error:
        return None, str(error)


def _given(about: dict[str, Any]) -> list[str]:
    """Return the data overrides with which an evaluation was made."""
    given = about.get("overrides")
    return [str(one) for one in given] if isinstance(given, list) else []


def appearances(
    reader: Reader, advance: Callable[[int], None] = lambda lines: None, most: int = MEASURED, seed: int = 0
) -> dict[str, Appearance]:
    """Measure lines, or a random sample of them if there are many; blank and unreadable lines are left out.

    Returns:
        What each measured line looks like, keyed by id.
    """
    found = {}
    for position in sorted(random.Random(seed).sample(range(len(reader)), min(most, len(reader)))):
        try:
            image = reader[position].image
        except InputError:
            continue  # counted by its absence
        if min(image.shape) >= MIN_SIDE and not is_blank(image):
            found[reader.ids[position]] = appearance(image)
        advance(1)
    return found


def appearance(image: UInt8[ndarray, "H W"]) -> Appearance:
    """Measure the contrast and the slope of a line."""
    upright = dark_on_light(image)
    darkest, paper = np.percentile(upright, (1, 50), method="nearest")
    return Appearance(float(paper) - float(darkest), math.degrees(math.atan(measure(stretch(upright)).slope)))


def picture(results: Results, position: int) -> UInt8[ndarray, "H W"] | None:
    """Return the image of a line, or None if it cannot be read."""
    try:
        return None if results.reader is None else results.reader[position].image
    except InputError:
        return None
