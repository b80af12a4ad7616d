"""The exception raised for errors that the user can fix, and its one-line messages."""

import re

# Control characters, line separators, lone surrogates, and the controls that change the direction of what follows.
# Joiners and unusual spaces are part of many texts and remain.
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
MAX_LENGTH = 2000  # characters of a message; a path has up to 1,000, and a corrupted file may contain longer names
WORKER = "Caught InputError in "  # PyTorch's prefix for the message and traceback of an error in a worker process


class InputError(Exception):
    """An error that the user can fix, with a one-line message that names the cause and the remedy.

    Command-line programs print the message and exit with code 1. File names and texts in the message are made
    printable, and the middle of a message longer than `MAX_LENGTH` is left out.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(WORKER):
            message = message.strip().splitlines()[-1].removeprefix(f"{__name__}.InputError: ")
        message = printable(message)
        if len(message) > MAX_LENGTH:
            half = MAX_LENGTH // 2 - 3
            message = f"{message[:half]} ... {message[-half:]}"
        super().__init__(message)


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with a noun in the singular or plural.

    >>> counted(1, "line"), counted(0, "line"), counted(2, "person", "people")
    ('1 line', '0 lines', '2 people')
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def printable(text: str) -> str:
    r"""Replace control characters and line breaks with escapes, e.g. a tab with `\t` and an escape with `\u001b`.

    The result is a single line and does not affect the terminal. JSON still has the same value.
    """
    return UNPRINTABLE.sub(lambda found: SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has no message."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that led to it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def check_integer(key: str, value: object, minimum: int, maximum: int = 10**9) -> None:
    """Raise InputError if the value of a key is not an integer in the given range.

    Args:
        key: name of the key, used in the message.
        value: value to check.
        minimum: smallest allowed value.
        maximum: largest allowed value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        shown = "null" if value is None else value
        raise InputError(f"{key}={shown}: expected an integer from {minimum} to {maximum}")
