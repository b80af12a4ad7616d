"""Reject or skip unusable lines, depending on the reader's options."""

from collections.abc import Sequence
from typing import NamedTuple

from htr_lightning.data.sample import Skipped
from htr_lightning.errors import InputError

EMPTY = "line without text"
LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where `str.splitlines` divides a text


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
            f"{first.id}: {first.kind}"
            + (f" ({first.detail})" if first.detail else "")
            + (f", the first of {count} such faults" if count > 1 else "")
            + f"; fix the data, or set data.reader.{option}=skip"
        )
    return [Skipped(*fault, "empty" if fault.kind == EMPTY else "faulty") for fault in faults]


def text_fault(id: str, text: str) -> Fault | None:
    """Return what is wrong with the text of a line, or None.

    A line contains one line of text: a second one would be joined to it when spaces are normalised. Line breaks at the
    ends are allowed.
    """
    lines = text.strip(LINE_BREAKS).splitlines()
    if not text.strip():
        return Fault(id, EMPTY)
    if len(lines) > 1:
        return Fault(id, "text with several lines", f"{len(lines)} lines")
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, e.g. from malformed JSON
        return Fault(id, "text is not valid UTF-8")
    return None
