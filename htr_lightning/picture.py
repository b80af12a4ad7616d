"""Draw pictures of lines with their transcriptions and edits."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.errors import UNPRINTABLE
from htr_lightning.metrics.confusions import Confusions
from htr_lightning.text.align import Edit, edits
from htr_lightning.text.direction import visual

ROW, TEXT, GAP = 44, 26, 8  # height of a line image, a line of text and a gap, in pixels
CELL = 96  # side of a cell in a grid of characters, in pixels
NOTHING = "(none)"  # shown in place of an empty transcription
BLACK, GREY, GREEN, RED = (30, 30, 30), (130, 130, 130), (0, 120, 40), (190, 30, 30)
# Edit colours that colour-blind readers can distinguish (Okabe and Ito, 2008, "Color universal design")
SUBSTITUTION, DELETION, INSERTION = (213, 94, 0), (0, 114, 178), (170, 80, 140)


def transcription_sheet(
    images: Sequence[UInt8[ndarray, "_ _"]],
    references: Sequence[str],
    hypotheses: Sequence[str] | None,
    width: int = 1000,
) -> UInt8[ndarray, "H W 3"]:
    """Draw images with their references and transcriptions: one strip per line, or a grid of single characters.

    References are grey and correct transcriptions green. In other transcriptions, wrong characters are red and
    underlined, and so are characters of the reference that are missing from the transcription. In a grid, a wrong
    character is followed by its reference.

    OpenCV draws from left to right and does not join letters, so right-to-left text is drawn in visual order.

    Args:
        images: images of lines or characters.
        references: reference texts; if none has more than one character, the picture is a grid.
        hypotheses: transcriptions; None to draw only the references.
        width: width of the picture in pixels.

    Returns:
        The picture in RGB; if there are characters without a glyph, its last row lists them.
    """
    shown: Sequence[str | None] = [None] * len(references) if hypotheses is None else hypotheses
    samples = list(zip(images, references, shown, strict=True))
    grid = max(map(len, references), default=0) <= 1
    strips = _grid(samples, width) if grid else [_strip(*sample, width) for sample in samples]
    return np.concatenate([*strips, _without_glyph([*references, *(hypotheses or ())], width)])


def _strip(
    image: UInt8[ndarray, "_ _"], reference: str, hypothesis: str | None, width: int
) -> UInt8[ndarray, "H W 3"]:  # fmt: skip
    """Draw a line above its reference and its transcription."""
    if hypothesis is None:
        return _strip(image, reference, reference, width)[[*range(ROW), *range(ROW + TEXT, ROW + 2 * TEXT + GAP)]]
    strip = np.full((ROW + 2 * TEXT + GAP, width, 3), 255, np.uint8)
    line = _fit(image, (ROW, width - 2 * GAP))
    strip[GAP // 2 : GAP // 2 + line.shape[0], GAP : GAP + line.shape[1]] = line[..., None]
    changes = edits(visual(reference), visual(hypothesis))
    read = GREEN if reference == hypothesis else BLACK
    above = [(edit.reference, GREY if edit.hypothesis else RED) for edit in changes]
    below = [(edit.hypothesis, read if edit.correct else RED) for edit in changes]
    longest = max(_width(visual(reference)), _width(visual(hypothesis)))
    size = min(18, 18 * (width - 2 * GAP) // max(1, longest))
    for row, characters in enumerate([above, below if hypothesis else [(NOTHING, read if not reference else RED)]]):
        left, base = GAP, ROW + 22 + row * TEXT
        written = [(text, colour) for text, colour in characters if text]
        for colour, run in groupby(written, key=lambda character: character[1]):
            right = left + _text(strip, "".join(text for text, _ in run), (left, base), colour, size)
            if colour == RED:
                cv2.line(strip, (left, base + 4), (right, base + 4), RED)
            left = right
    strip[-2] = 220
    return strip


def _grid(
    samples: Sequence[tuple[UInt8[ndarray, "_ _"], str, str | None]], width: int
) -> list[UInt8[ndarray, "H W 3"]]:
    """Draw characters in rows of equal cells, each above its transcription."""
    columns, rows = max(1, width // CELL), []
    for start in range(0, len(samples), columns):
        row = np.full((CELL + TEXT, width, 3), 255, np.uint8)
        for column, (image, reference, hypothesis) in enumerate(samples[start : start + columns]):
            left, character = column * CELL, _fit(image, (CELL - 2 * GAP, CELL - 2 * GAP))
            x, y = left + (CELL - character.shape[1]) // 2, (CELL - character.shape[0]) // 2
            row[y : y + character.shape[0], x : x + character.shape[1]] = character[..., None]
            hypothesis = reference if hypothesis is None else hypothesis
            correct, read = hypothesis == reference, visual(hypothesis) or NOTHING
            wrong = "" if correct else f" ≠ {visual(reference) or NOTHING}"
            x = left + max(0, CELL - _width(read + wrong)) // 2
            x += _text(row, read, (x, CELL + 16), GREEN if correct else RED, 18)
            _text(row, wrong, (x, CELL + 16), GREY, 18)
        row[-2], row[:, CELL - 1 : columns * CELL : CELL] = 220, 220
        rows.append(row)
    return rows


def _fit(image: UInt8[ndarray, "_ _"], size: tuple[int, int]) -> UInt8[ndarray, "_ _"]:
    """Scale an image to the largest size that fits into the given (height, width) in pixels."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    fitted = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _without_glyph(texts: Sequence[str], width: int) -> UInt8[ndarray, "H W 3"]:
    """Draw a list of the characters for which the font has no glyph; return no rows if every character has one."""
    missing = sorted(character for character in set("".join(texts)) if not _has_glyph(character))
    note = np.full((TEXT if missing else 0, width, 3), 255, np.uint8)
    if missing:
        shown = " ".join(f"U+{ord(character):04X}" for character in missing[:12])
        _text(note, f"no glyph (drawn as ?): {shown}{' ...' if len(missing) > 12 else ''}", (GAP, 18), GREY, 14)
    return note


@cache
def _has_glyph(character: str) -> bool:
    """Return whether the font has a glyph for a character; OpenCV draws a question mark if not."""
    pictures = [np.full((40, 60, 3), 255, np.uint8) for _ in range(2)]
    for picture, text in zip(pictures, (character, "?"), strict=True):
        _text(picture, text, (10, 28), BLACK, 18)
    return character == "?" or bool((pictures[0] != pictures[1]).any())


def edit_sheet(
    images: Sequence[UInt8[ndarray, "_ _"]],
    references: Sequence[str],
    hypotheses: Sequence[str],
    captions: Sequence[str],
    width: int = 1000,
) -> UInt8[ndarray, "H W 3"]:
    """Draw one strip per line: a caption, the image, and the reference above the hypothesis, aligned by character.

    Each edit is boxed in the colour of its kind; a space that is part of an edit is drawn as a symbol. Right-to-left
    text is shown and compared in visual order, as in the image.

    Args:
        images: line images.
        references: reference texts.
        hypotheses: transcriptions.
        captions: caption of each line.
        width: width of the picture in pixels.

    Returns:
        The picture in RGB.
    """
    kinds = ((Edit("a", "b"), "substitution"), (Edit("a", ""), "deletion"), (Edit("", "a"), "insertion"))
    head = np.full((TEXT, width, 3), 255, np.uint8)
    left = GAP
    for edit, kind in kinds:
        cv2.rectangle(head, (left, 6), (left + 16, 22), _colour(edit), -1)
        left += 24 + _text(head, kind, (left + 24, 20), GREY, 16) + 3 * GAP
    strips = [head]
    for image, reference, hypothesis, caption in zip(images, references, hypotheses, captions, strict=True):
        line = _fit(image, (2 * ROW, width - 2 * GAP))
        top = np.full((TEXT + line.shape[0] + GAP, width, 3), 255, np.uint8)
        cv2.line(top, (0, 1), (width, 1), (220, 220, 220))
        _text(top, caption, (GAP, 20), GREY, 14)
        top[TEXT : TEXT + line.shape[0], GAP : GAP + line.shape[1]] = line[..., None]
        strips += [top, *_slots(edits(visual(reference), visual(hypothesis)), width)]
    return np.concatenate([*strips, _without_glyph([*references, *hypotheses], width)])


def _slots(changes: Sequence[Edit], width: int) -> list[UInt8[ndarray, "H W 3"]]:
    """Draw the reference above the hypothesis, wrapped into as many strips as needed."""
    strips: list[UInt8[ndarray, "H W 3"]] = []
    left = width
    for edit in changes:
        room = max(8, *(_width(character) for character in edit)) + 2
        if left + room > width - GAP:
            strips.append(np.full((2 * TEXT + GAP, width, 3), 255, np.uint8))
            left = GAP
        colour = GREY if edit.correct else _colour(edit)
        if not edit.correct:
            cv2.rectangle(strips[-1], (left - 1, 2), (left + room - 2, 2 * TEXT), colour, 1)
        for row, character in enumerate(edit):
            base = row * TEXT + 20
            if character == " " and not edit.correct:
                end = left + room - 5
                symbol = [[left + 1, base - 3], [left + 1, base], [end, base], [end, base - 3]]
                cv2.polylines(strips[-1], [np.array(symbol, np.int32)], False, colour)
            middle = left + (room - 2 - _width(character)) // 2
            _text(strips[-1], character, (middle, base), (0, 0, 0) if row and edit.correct else colour, 18)
        left += room
    return strips


def _colour(edit: Edit) -> tuple[int, int, int]:
    return SUBSTITUTION if edit.reference and edit.hypothesis else DELETION if edit.reference else INSERTION


def _drawable(text: str) -> str:
    """Replace control characters, which would move the pen, and lone surrogates, with which OpenCV crashes."""
    return UNPRINTABLE.sub("?", text)


def _text(
    picture: UInt8[ndarray, "_ _ 3"], text: str, position: tuple[int, int], colour: tuple[int, int, int], size: int
) -> int:
    """Draw text on a picture and return the width of the text in pixels."""
    font = cv2.FontFace("sans")
    cv2.putText(picture, _drawable(text), position, colour, font, size)
    return _width(text, size)


def _width(text: str, size: int = 18) -> int:
    return cv2.getTextSize((1, 1), _drawable(text), (0, 0), cv2.FontFace("sans"), size)[2] if text else 0


def to_grey(ink: ndarray) -> UInt8[ndarray, "_ _"]:
    """Convert preprocessed ink in [0, 1] to a greyscale image, dark on light."""
    return np.asarray((1 - ink.clip(0, 1)) * 255, dtype=np.uint8)


def augmentation_sheet(
    before: Sequence[UInt8[ndarray, "_ _"]], after: Sequence[Sequence[UInt8[ndarray, "_ _"]]], height: int = 48
) -> UInt8[ndarray, "H W"]:
    """Draw each line with a bar on its left, and its augmented versions indented below.

    Args:
        before: original line images.
        after: augmented versions of each line.
        height: height to which all images are scaled, in pixels.
    """
    rows: list[tuple[int, UInt8[ndarray, "_ _"]]] = []  # indent, picture
    for line, versions in zip(before, after, strict=True):
        rows += [(0, _at_height(line, height)), *((3 * GAP, _at_height(version, height)) for version in versions)]
    width = max((indent + picture.shape[1] for indent, picture in rows), default=height) + 2 * GAP
    sheet = np.full((max(1, len(rows)) * (height + GAP) + GAP, width), 150, np.uint8)
    for number, (indent, picture) in enumerate(rows):
        top, left = GAP + number * (height + GAP), GAP + indent
        sheet[top : top + height, left : left + picture.shape[1]] = picture
        if not indent:
            sheet[top : top + height, : GAP // 2] = 0
    return sheet


def bar_chart(
    charts: Sequence[tuple[str, Sequence[tuple[str, float, str, bool]]]], width: int = 1000
) -> UInt8[ndarray, "H W 3"]:
    """Draw charts of horizontal bars below each other.

    Args:
        charts: title and bars of each chart; a bar has a label, a value from 0, the value as a text, and whether it is
            drawn in grey. The longest bar of a chart fills its row.
        width: width of the picture in pixels.

    Returns:
        The picture in RGB.
    """
    strips = []
    for title, bars in charts:
        strip = np.full((TEXT * (len(bars) + 1) + GAP, width, 3), 255, np.uint8)
        _text(strip, title, (GAP, 20), BLACK, 18)
        longest = max((value for _, value, _, _ in bars), default=0.0) or 1.0
        size = 14
        left = min(width // 2, GAP + max((_width(label, size) for label, *_ in bars), default=0)) + GAP
        room = width - left - 2 * GAP - max((_width(text, size) for _, _, text, _ in bars), default=0)
        for row, (label, value, text, is_grey) in enumerate(bars, 1):
            base = row * TEXT + 18
            _text(strip, label, (GAP, base), BLACK, size)
            strip[base - 14 : base + 4, left - GAP // 2 :] = 255  # the end of a long label
            right = left + round(room * value / longest)
            cv2.rectangle(strip, (left, base - 12), (right, base + 2), GREY if is_grey else DELETION, -1)
            _text(strip, text, (right + GAP, base), BLACK, size)
        strips.append(strip)
    return np.concatenate(strips)


def confusion_sheet(found: Confusions, cell: int = 30) -> UInt8[ndarray, "H W 3"]:
    """Draw how often characters were read as others: a row for each reference, a column for each transcription.

    A cell is the darker, the more edits it counts, and shows their number. Correct characters are left out.

    Args:
        found: confusions; a missing or inserted character is shown as ∅.
        cell: side of a cell in pixels.

    Returns:
        The picture in RGB.
    """
    left, top = 3 * TEXT, 3 * TEXT
    names = [{" ": "␣", "": "∅"}.get(one, visual(one)) for one in found.hypotheses]
    caption = "references (rows) read as (columns); ∅: nothing"
    width = max(left + cell * len(names) + GAP, _width(caption, 14) + 2 * GAP)
    sheet = np.full((top + cell * len(found.references) + GAP, width, 3), 255, np.uint8)
    _text(sheet, caption, (GAP, 20), GREY, 14)
    most = max((n for row, r in zip(found.counts, found.references, strict=True)
                for n, h in zip(row, found.hypotheses, strict=True) if r != h), default=0)  # fmt: skip
    for index, name in enumerate(names):
        middle = (cell - _width(name)) // 2
        _text(sheet, name, (left + index * cell + middle, top - GAP), BLACK, 18)
        _text(sheet, name, (left - TEXT - _width(name) // 2, top + index * cell + 21), BLACK, 18)
        for column, count in enumerate(found.counts[index]):
            x, y = left + column * cell, top + index * cell
            strength = 0.0 if column == index or not most else (count / most) ** 0.5
            paper, colour = np.array((245, 245, 245)), np.array(SUBSTITUTION)
            sheet[y : y + cell - 2, x : x + cell - 2] = 225 if column == index else paper + strength * (colour - paper)
            if count and column != index:
                text = str(count) if count < 1000 else "…"
                _text(sheet, text, (x + (cell - 2 - _width(text, 13)) // 2, y + 19), BLACK, 13)
    return np.concatenate([sheet, _without_glyph(names, width)])


def _at_height(image: UInt8[ndarray, "_ _"], height: int) -> UInt8[ndarray, "_ _"]:
    size = (max(1, round(image.shape[1] * height / image.shape[0])), height)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR)
