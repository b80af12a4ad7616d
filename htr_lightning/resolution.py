"""Choose the resolution at which lines are read: rows from the script, and the width from the training lines."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import regex
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.config import make
from htr_lightning.data.line_dataset import Augment, LineDataset
from htr_lightning.data.preprocess import HEIGHT, SQUARE_HEIGHT, SQUARE_X_HEIGHT, X_HEIGHT, Preprocess
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer

MIN_FRAMES = 1.6  # frames per character; with fewer, CTC has little room for the blanks between characters
FITTING = 0.995  # fraction of the training lines that should have them; the others are mostly bad crops
MAX_SCALE = 1.5  # of widths, since training and reading take longer in proportion
STEP = 0.05  # widths are scaled by a multiple of this
SAMPLE = 1000  # number of training lines measured
DRAWS = 4  # number of times each line is augmented
WIDE = 4096  # columns of the image used to count the columns per frame
# Characters that fill a square and contain up to ten horizontal strokes instead of three.
SQUARE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}\p{Yi}\p{Tangut}]")


class Resolution(NamedTuple):
    """A resolution and what it achieves on the training lines."""

    settings: dict[str, Any]  # height, x_height and width_scale of the preprocessing, as far as they were not set
    fitting: float | None  # fraction of the lines with `MIN_FRAMES` per character; None if the model has no frames

    def __str__(self) -> str:
        parts = []
        if "height" in self.settings:
            parts.append(f"{self.settings['height']} rows")
        elif "x_height" in self.settings:
            parts.append(f"x-height {self.settings['x_height']:g}")
        if "width_scale" in self.settings:
            parts.append(f"widths x {self.settings['width_scale']:g}")
        if self.fitting is not None:
            parts.append(f"{MIN_FRAMES} frames a character in {self.fitting:.1%} of lines")
        return " · ".join(parts)


def choose(
    settings: dict[str, Any], recognizer: Recognizer, lines: LineDataset, augment: Augment | None = None
) -> Resolution | None:
    """Choose the settings of a preprocessing that are null in its config; return None if there are none.

    `height` and `x_height` depend on the script of the training texts. `width_scale` is the smallest multiple of `STEP`
    from 1 to `MAX_SCALE` with which `FITTING` of the augmented training lines have at least `MIN_FRAMES` per character.

    Args:
        settings: config of the preprocessing.
        recognizer: recognizer with the network that will read the lines.
        lines: training lines.
        augment: augmentation of the training lines.
    """
    missing = [key for key in ("height", "x_height", "width_scale") if settings.get(key, key) is None]
    if not missing:
        return None
    rows, fraction = (SQUARE_HEIGHT, SQUARE_X_HEIGHT) if is_square(lines.texts) else (HEIGHT, X_HEIGHT)
    rows = settings.get("height") or rows
    found: dict[str, Any] = {"height": rows, "x_height": round(fraction * rows, 1), "width_scale": 1.0}
    found = {key: value for key, value in found.items() if key in missing}
    frames = recognizer.frames_for(WIDE)
    if not frames:
        return Resolution(found, None)
    narrow = make(settings | found | {"width_scale": 1.0}, "model.preprocess")
    needed = _needed_scales(recognizer, lines, augment, narrow, WIDE / frames)
    scale = float(settings.get("width_scale") or 1.0)
    if "width_scale" in missing:
        exact = min(max(float(np.quantile(needed, FITTING, method="higher")), 1.0), MAX_SCALE)
        scale = found["width_scale"] = round(math.ceil(round(exact / STEP, 6)) * STEP, 2)
    return Resolution(found, float(np.mean(needed <= scale)))


def is_square(texts: Iterable[str]) -> bool:
    """Return whether most letters in the texts are characters that fill a square, as in Chinese."""
    square = letters = 0
    for text in texts:
        square += len(SQUARE.findall(text))
        letters += sum(map(str.isalpha, text))
    return 2 * square > letters


def _needed_scales(
    recognizer: Recognizer, lines: LineDataset, augment: Augment | None, preprocess: Preprocess, columns: float
) -> Float[ndarray, " N"]:
    """Return the factor by which a sample of lines must be widened to have enough frames after augmentation.

    Args:
        recognizer, lines, augment: see `choose`.
        preprocess: preprocessing that does not widen lines.
        columns: number of columns per frame.
    """
    places = np.sort(np.random.default_rng(0).permutation(len(lines))[:SAMPLE]).tolist()
    margins = 2 * preprocess.margin
    scales = []
    for place in places:
        text = lines.texts[place]
        required = max(MIN_FRAMES * len(text), recognizer.required_frames(text))
        try:
            image = preprocess.geometry(preprocess.reduce(lines.reader[place].image))
            widths = [preprocess.width((image.shape[0], image.shape[1]))]
            if augment is not None:
                for draw in range(DRAWS):
                    drawn = augment(image, np.random.default_rng((lines.seed, draw, place)))
                    widths.append(preprocess.width((drawn.shape[0], drawn.shape[1])))
        except (ValueError, InputError):
            continue  # a faulty line, which is reported where all lines are read
        scales.append((required * columns - margins) / max(1, min(widths) - margins))
    return np.array(scales or [0.0])
