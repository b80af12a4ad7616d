"""Parse YAML files that other people wrote, limiting their size, depth and the expansion of aliases."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from htr_lightning.errors import InputError

MAX_BYTES = 200_000  # the metadata of a data set or the config of a run has a few thousand bytes
MAX_CHARACTERS = 2_000_000  # with each alias replaced by what it stands for
VALUE = 100  # characters that each value counts for in addition to its own, because objects take memory and time
MAX_DEPTH = 50
MAX_DIGITS = 1000
NUMBER = re.compile(r"[-+\w.:]+")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
# Constructors of YAML types such as !!timestamp and !!bool raise these for an invalid value.
INVALID = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)


def load_yaml(path: Path, parse: Callable[[str], Any] | None = None) -> Any:
    """Parse a YAML file.

    Args:
        path: path to the file.
        parse: function that parses the text; None returns plain data.

    Raises:
        InputError: if the file cannot be read, is not valid YAML, or exceeds a limit.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        text = content.decode("utf-8-sig")
        _check(text)
        return yaml.load(text, Loader=LOADER) if parse is None else parse(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    except INVALID as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: invalid YAML ({reason}); correct or remove the file") from None


def _check(text: str) -> None:
    """Raise ValueError if a text is nested too deeply, contains a huge number, or expands to too many characters.

    Only the events of the parser are read, so that nothing is expanded.
    """
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []  # anchor of each open collection, and the size before it
    size = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, size))
            if len(opened) > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes |= {anchor: size - before} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias *{event.anchor} refers to nothing before it")
            size += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if event.implicit[0] and len(event.value) > MAX_DIGITS and NUMBER.fullmatch(event.value):
                raise ValueError(f"a value of {len(event.value)} characters without quotes or spaces")
            size += len(event.value)
            sizes |= {event.anchor: len(event.value) + VALUE} if event.anchor else {}
        size += VALUE
        if size > MAX_CHARACTERS:
            raise ValueError("too many values, or aliases that expand to too many")
