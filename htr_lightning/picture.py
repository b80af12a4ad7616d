"""Pictures of lines with what was read in them."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.text.direction import visual

ROW, TEXT, GAP = 44, 26, 8  # pixels of a line image, of a line of text, between them
GREY, GREEN, RED = (130, 130, 130), (0, 120, 40), (190, 30, 30)


def transcription_sheet(
    images: Sequence[UInt8[ndarray, "_ _"]], references: Sequence[str], hypotheses: Sequence[str], width: int = 1000
) -> UInt8[ndarray, "H W 3"]:
    """One strip a line: the image, below it the reference in grey and the transcription, green where it is right.

    OpenCV draws from left to right and joins no letters, so right-to-left text is put in visual order before.

    Returns:
        The picture in RGB.
    """
    height = ROW + 2 * TEXT + GAP
    sheet = np.full((max(1, len(images)) * height, width, 3), 255, np.uint8)
    font = cv2.FontFace("sans")  # OpenCV's own, which has Latin, Greek, Cyrillic, Hebrew, Arabic and Chinese letters
    for row, (image, reference, hypothesis) in enumerate(zip(images, references, hypotheses, strict=True)):
        top = row * height
        scale = min(ROW / image.shape[0], (width - 2 * GAP) / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        line = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        sheet[top + GAP // 2 : top + GAP // 2 + size[1], GAP : GAP + size[0]] = line[..., None]
        right = GREEN if hypothesis == reference else RED
        for place, (text, colour) in enumerate([(reference, GREY), (hypothesis or "(nothing)", right)]):
            cv2.putText(sheet, visual(text), (GAP, top + ROW + 22 + place * TEXT), colour, font, 18)
        cv2.line(sheet, (0, top + height - 2), (width, top + height - 2), (220, 220, 220))
    return sheet


def to_grey(ink: ndarray) -> UInt8[ndarray, "_ _"]:
    """Preprocessed ink in [0, 1] as a picture, dark on light."""
    return np.asarray((1 - ink.clip(0, 1)) * 255, dtype=np.uint8)


def augmentation_sheet(
    before: Sequence[UInt8[ndarray, "_ _"]], after: Sequence[Sequence[UInt8[ndarray, "_ _"]]], height: int = 48
) -> UInt8[ndarray, "H W"]:
    """Every line marked by a bar on its left, and below it, set in, what augmentation made of it.

    Args:
        before: the lines as they were read.
        after: any number of versions of each.
        height: rows to which each picture is scaled, as a network would see it.
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
