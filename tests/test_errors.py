"""Messages are one printable line, whatever the names and texts in them contain."""

import json
import pickle
import sys
import unicodedata

import pytest

from htr_lightning.errors import InputError, printable

# Explicit marks and overrides of the direction, which would reorder the rest of a line
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_control_characters_line_breaks_and_direction_controls_are_escaped_and_all_else_remains() -> None:
    for character in map(chr, [*range(0x3000), *range(0xD7F0, 0xE010), 0xFEFF, 0xFFFD, sys.maxunicode]):
        unsafe = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in BIDI
        assert (printable(character) != character) == unsafe, ascii(character)


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\tb\r\nc", "\u202egnp.x", "a\x85b\u2028c", 'say "hi" \\n', "\x9b1m"])
def test_escapes_keep_the_value_of_json_and_the_number_of_lines(text: str) -> None:
    line = printable(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(line) == {"text": text}
    assert line.splitlines() == [line]
    assert len(printable(text).splitlines()) == 1
    assert printable(printable(text)) == printable(text)


def test_spaces_joiners_and_private_characters_of_texts_remain() -> None:
    for text in ("a\u00a0b", "می\u200cخواهم", "क्\u200dष", "\u3000漢字", "\uf1ac", "שלום\u200f"):
        assert printable(text) == text


def test_a_message_is_one_line_also_after_pickling_and_in_a_worker_process() -> None:
    error = InputError("x\n\x1b[2J.png: not an image")
    assert str(error) == r"x\n\u001b[2J.png: not an image"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    # PyTorch raises an error of a worker again with its traceback as the message
    trace = (
        f"Caught InputError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\n{InputError.__module__}."
    )
    assert str(InputError(f"{trace}InputError: {error}\n")) == str(error)


def test_the_middle_of_a_long_message_is_left_out() -> None:
    message = str(InputError(f"x.png: {'a' * 10**6}; crop it"))
    assert len(message) < 2000
    assert message.startswith("x.png: aaa")
    assert message.endswith("aaa; crop it")
