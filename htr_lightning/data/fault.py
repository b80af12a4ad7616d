"""Reject or skip unusable lines, depending on the reader's options."""

from collections.abc import Sequence
from typing import NamedTuple

from htr_lightning.data.sample import Skipped
from htr_lightning.errors import InputError

EMPTY = "line without text"


class Fault(NamedTuple):
    """A fault in one line, row or file of a data set."""

    id: str  # sample id, or file and row
    kind: str  # for example "row without an image"; faults are counted by kind
    detail: str = ""  # the offending value


def sort_out(faults: Sequence[Fault], empty: str, faulty: str) -> list[Skipped]:
    """Return the lines to skip, or raise an error if the options do not allow skipping them.

    Args:
        faults: all faults found by the reader.
        empty: what to do with lines without text ("error", "skip" or "keep").
        faulty: what to do with all other faults ("error" or "skip").

    Raises:
        InputError: if an option is invalid or a fault must not be skipped; the message describes the first such fault
            and gives the number of faults of the same kind.
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
            + (f", the first of {count} such faults" if count > 1 else "")
            + f"; fix the data, or set data.reader.{option}=skip"
        )
    return [Skipped(*fault, "empty" if fault.kind == EMPTY else "faulty") for fault in faults]


def encodable(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8. Lone surrogates, e.g. from malformed JSON, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Replace nonprintable characters, so that an error message stays on one line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
