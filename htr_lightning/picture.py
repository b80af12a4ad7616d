"""Draw pictures of lines with their transcriptions and edits."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.text.align import Edit, edits
from htr_lightning.text.direction import visual

ROW, TEXT, GAP = 44, 26, 8  # height of a line image, a line of text and a gap, in pixels
GREY, GREEN, RED = (130, 130, 130), (0, 120, 40), (190, 30, 30)
# Edit colours that colour-blind readers can distinguish (Okabe and Ito, 2008, "Color universal design")
SUBSTITUTION, DELETION, INSERTION = (213, 94, 0), (0, 114, 178), (170, 80, 140)


def transcription_sheet(
    images: Sequence[UInt8[ndarray, "_ _"]], references: Sequence[str], hypotheses: Sequence[str], width: int = 1000
) -> UInt8[ndarray, "H W 3"]:
    """Draw one strip per line: the image, the reference in grey, and the transcription in green or, if wrong, in red.

    OpenCV draws from left to right and does not join letters, so right-to-left text is drawn in visual order.

    Returns:
        The picture in RGB.
    """
    height = ROW + 2 * TEXT + GAP
    sheet = np.full((max(1, len(images)) * height, width, 3), 255, np.uint8)
    font = cv2.FontFace("sans")  # built into OpenCV; covers Latin, Greek, Cyrillic, Hebrew, Arabic and Chinese
    for row, (image, reference, hypothesis) in enumerate(zip(images, references, hypotheses, strict=True)):
        top = row * height
        scale = min(ROW / image.shape[0], (width - 2 * GAP) / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        line = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        sheet[top + GAP // 2 : top + GAP // 2 + size[1], GAP : GAP + size[0]] = line[..., None]
        verdict = GREEN if hypothesis == reference else RED
        for position, (text, colour) in enumerate([(reference, GREY), (hypothesis or "(nothing)", verdict)]):
            cv2.putText(sheet, visual(text), (GAP, top + ROW + 22 + position * TEXT), colour, font, 18)
        cv2.line(sheet, (0, top + height - 2), (width, top + height - 2), (220, 220, 220))
    return sheet


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
        scale = min(2 * ROW / image.shape[0], (width - 2 * GAP) / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        line = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top = np.full((TEXT + size[1] + GAP, width, 3), 255, np.uint8)
        cv2.line(top, (0, 1), (width, 1), (220, 220, 220))
        _text(top, caption, (GAP, 20), GREY, 14)
        top[TEXT : TEXT + size[1], GAP : GAP + size[0]] = line[..., None]
        strips += [top, *_slots(edits(visual(reference), visual(hypothesis)), width)]
    return np.concatenate(strips)


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


def _text(
    picture: UInt8[ndarray, "_ _ 3"], text: str, position: tuple[int, int], colour: tuple[int, int, int], size: int
) -> int:
    """Draw text on a picture and return the width of the text in pixels."""
    font = cv2.FontFace("sans")
    cv2.putText(picture, text, position, colour, font, size)
    return _width(text, size)


def _width(text: str, size: int = 18) -> int:
    return cv2.getTextSize((1, 1), text, (0, 0), cv2.FontFace("sans"), size)[2] if text else 0


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


def _at_height(image: UInt8[ndarray, "_ _"], height: int) -> UInt8[ndarray, "_ _"]:
    size = (max(1, round(image.shape[1] * height / image.shape[0])), height)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR)
