"""Pictures of lines with what was read in them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

ROW = 44  # pixels of a line image
GAP = 8


def transcription_sheet(
    images: Sequence[UInt8[ndarray, "_ _"]], references: Sequence[str], hypotheses: Sequence[str], width: int = 1000
) -> Image.Image:
    """One strip a line: the image, below it the reference in grey and the transcription, green where it is right."""
    font = ImageFont.load_default(18)
    height = ROW + 2 * 24 + GAP
    sheet = Image.new("RGB", (width, max(1, len(images)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (image, reference, hypothesis) in enumerate(zip(images, references, hypotheses, strict=True)):
        top = row * height
        line = Image.fromarray(image)
        scale = min(ROW / line.height, (width - 2 * GAP) / line.width)
        line = line.resize((max(1, round(line.width * scale)), max(1, round(line.height * scale))), Image.Resampling.BOX)
        sheet.paste(line, (GAP, top + GAP // 2))
        draw.text((GAP, top + ROW + 4), reference, fill=(130, 130, 130), font=font)
        right = (0, 120, 40) if hypothesis == reference else (190, 30, 30)
        draw.text((GAP, top + ROW + 26), hypothesis or "(nothing)", fill=right, font=font)
        draw.line((0, top + height - 2, width, top + height - 2), fill=(220, 220, 220))
    return sheet


def to_grey(ink: ndarray) -> UInt8[ndarray, "_ _"]:
    """Preprocessed ink in [0, 1] as a picture, dark on light."""
    return np.asarray((1 - ink.clip(0, 1)) * 255, dtype=np.uint8)
