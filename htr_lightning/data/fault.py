"""Lines that cannot be used: refused by name, or skipped and counted, depending on the options."""

from collections.abc import Sequence
from typing import NamedTuple

from htr_lightning.data.sample import Skipped
from htr_lightning.errors import InputError

EMPTY = "line without text"


class Fault(NamedTuple):
    """What is wrong with one line, row or file of a data set."""

    id: str  # of the sample, or the file and row
    kind: str  # "row without image": faults of one kind are counted together
    detail: str = ""  # the offending value


def sort_out(faults: Sequence[Fault], empty: str, faulty: str) -> list[Skipped]:
    """The lines that are skipped, as the options say.

    Args:
        faults: all that were found.
        empty: "error", "skip" or "keep" for lines without text.
        faulty: "error" or "skip" for all others.

    Raises:
        InputError: a line is not to be skipped; the first is named and those of its kind are counted.
    """
    for option, value, choices in (("empty", empty, ("error", "skip", "keep")), ("faulty", faulty, ("error", "skip"))):
        if value not in choices:
            raise InputError(f"data.reader.{option}={value}: use one of {', '.join(choices)}")
    faults = [fault for fault in faults if fault.kind != EMPTY or empty != "keep"]
    refused = [fault for fault in faults if (empty if fault.kind == EMPTY else faulty) != "skip"]
    if refused:
        first, count = refused[0], sum(fault.kind == refused[0].kind for fault in refused)
        option = "empty" if first.kind == EMPTY else "faulty"
        raise InputError(
            f"{printable(first.id)}: {first.kind}"
            + (f" ({printable(first.detail)})" if first.detail else "")
            + (f", the first of {count}" if count > 1 else "")
            + f"; correct it, or set data.reader.{option}=skip"
        )
    return [Skipped(*fault, "empty" if fault.kind == EMPTY else "faulty") for fault in faults]


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half of a surrogate pair, as found in broken JSON, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """A text with every control character replaced, so that a message stays on one line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
