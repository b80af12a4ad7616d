"""Notice pages that may be in a script that a recognizer cannot read. Does not import torch."""

from collections.abc import Iterable

from htr_lightning.data.page.write_page import NAMES
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.pretrained import LANGUAGES
from htr_lightning.text.script import scripts
from htr_lightning.transcription import Transcriber, Transcription

# Measured with latin-modern (experiments/README.md): 191 of 192 pages in Latin script have 0.61 or more, those in
# Arabic, Hebrew and Chinese at most 0.60. Greek and Cyrillic, whose letters look like Latin ones, cannot be told by it.
MIN_CONFIDENCE = 0.6  # mean confidence of the characters on a page
MIN_CHARACTERS = 20  # fewer say nothing


def page_confidence(read: Iterable[Transcription | None]) -> float | None:
    """Return the mean confidence of the characters on a page, or None if there are too few.

    Args:
        read: transcriptions of its lines; None for those that could not be read.
    """
    found = [
        confidence
        for one in read
        if one is not None
        for confidence in (one.characters or [one.confidence] * len(one.text))
    ]
    return sum(found) / len(found) if len(found) >= MIN_CHARACTERS else None


def is_unknown(recognizer: Transcriber, confidence: float | None) -> bool:
    """Return whether a page with this mean confidence may be in a script that the recognizer cannot read.

    The limit says something about calibrated recognizers of text only: others may be unsure of any page.
    """
    if recognizer.single_characters or recognizer.calibration == Calibration() or not _scripts(recognizer):
        return False
    return confidence is not None and confidence < MIN_CONFIDENCE


def reads(recognizer: Transcriber, name: str) -> str:
    """Return what a recognizer reads, such as "Latin script (French, English)"; "" for digits and signs only."""
    known, spoken = _scripts(recognizer), languages(name)
    return known and f"{known} script" + (f" ({spoken})" if spoken else "")


def languages(name: str) -> str:
    """Return the languages that the recognizer of this name reads, such as "French, English"; "" if unknown."""
    return ", ".join(NAMES[code] for code in LANGUAGES.get(name, ()))


def _scripts(recognizer: Transcriber) -> str:
    return ", ".join(scripts(recognizer.card["alphabet"]))


def warning(recognizer: Transcriber, name: str, what: str, confidence: float) -> str:
    """Return a note on a page that `is_unknown`.

    Args:
        recognizer: recognizer that read it.
        name: its name.
        what: the page.
        confidence: mean confidence of its characters.
    """
    return (f"{what}: low confidence ({confidence:.0%}): perhaps in a script that {name or 'this recognizer'} does not "
            f"read (it reads {_scripts(recognizer)}), or hard to read")  # fmt: skip
