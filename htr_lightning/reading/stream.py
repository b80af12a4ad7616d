"""Transcribe a line while it is being written: frames of a camera, or strokes on a canvas. Does not import torch."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

import cv2
import editdistance
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from htr_lightning.errors import check_integer
from htr_lightning.reading.reader import Readable, Reader
from htr_lightning.transcription import Transcription

HEIGHT = 64  # rows of a line drawn from strokes
PEN = 0.04  # width of a stroke, as a fraction of the height


class Partial(NamedTuple):
    """The text of an unfinished line."""

    text: str
    stable: int  # number of characters at the start of the text that will not change any more
    confidence: float  # of the newest transcription


class StreamingReader:
    """A reader of one line that grows from frame to frame.

    The start of the text becomes stable when several transcriptions in a row agree on it, except for the characters
    that may not be finished, and then does not change until the line ends (Liu et al., 2020, "Low-latency
    sequence-to-sequence speech recognition and translation by partial hypothesis selection", arXiv:2005.11185).

    Args:
        reader: reader of single lines.
        agreement: number of transcriptions in a row that must agree.
        open_end: number of characters at the end of a text that do not become stable.
    """

    def __init__(self, reader: Reader, agreement: int = 2, open_end: int = 2) -> None:
        check_integer("agreement", agreement, 1)
        check_integer("open_end", open_end, 0)
        self.reader, self.open_end = reader, open_end
        self._recent: deque[str] = deque(maxlen=agreement)
        self._frame: ndarray | None = None
        self._newest = Transcription("", 1.0)
        self._partial = Partial("", 0, 1.0)

    def read(self, frame: Readable) -> Partial:
        """Return the text so far; a frame that equals the one before takes no time.

        Args:
            frame: image of the line as it is now; see `Reader.read`.

        Raises:
            InputError: if the frame cannot be read.
        """
        if isinstance(frame, ndarray):
            if self._frame is not None and np.array_equal(self._frame, frame):
                return self._partial
            self._frame = frame.copy()
        self._newest = self.reader.read(frame)
        text = self._newest.text
        self._recent.append(text[: max(0, len(text) - self.open_end)])
        stable = self._partial.text[: self._partial.stable]
        if len(self._recent) == self._recent.maxlen:
            agreed = _common_start(self._recent)
            stable = agreed if agreed.startswith(stable) else stable
        self._partial = Partial(stable + _rest(text, stable), len(stable), self._newest.confidence)
        return self._partial

    def read_strokes(self, strokes: Sequence[Float[ndarray, "_ 2"]]) -> Partial:
        """Return the text of strokes on a canvas, each a sequence of (x, y) points; see `read`."""
        return self.read(draw(strokes))

    def finish(self) -> Transcription:
        """Return the transcription of the whole line, which may differ from its stable start, and begin a new line."""
        found = self._newest
        self._recent.clear()
        self._frame, self._newest, self._partial = None, Transcription("", 1.0), Partial("", 0, 1.0)
        return found


def draw(strokes: Sequence[Float[ndarray, "_ 2"]], height: int = HEIGHT) -> UInt8[ndarray, "H W"]:
    """Return an image of strokes, dark on light, scaled to a number of rows.

    Args:
        strokes: sequences of (x, y) points in any unit, with y growing downwards.
        height: rows of the image, margins included.
    """
    points = [np.asarray(stroke, np.float64).reshape(-1, 2) for stroke in strokes if len(stroke)]
    if not points:
        return np.full((height, height), 255, np.uint8)
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    margin = height / 8
    scale = (height - 2 * margin) / max(high[1] - low[1], (high[0] - low[0]) / 100, 1e-9)
    image = np.full((height, round((high[0] - low[0]) * scale + 2 * margin) + 1), 255, np.uint8)
    bits = 4  # of a fraction of a pixel
    for stroke in points:
        pixels = np.round(((stroke - low) * scale + margin) * (1 << bits)).astype(np.int32)
        pixels = np.repeat(pixels, 2, axis=0) if len(pixels) == 1 else pixels  # a dot
        cv2.polylines(image, [pixels[:, None]], False, 0, max(1, round(PEN * height)), cv2.LINE_AA, bits)
    return image


def _rest(text: str, stable: str) -> str:
    """Return what follows the stable start in a newer text, in which the start itself may have changed."""
    ends = range(len(text) + 1)
    return text[min(ends, key=lambda end: (editdistance.eval(stable, text[:end]), -end)) :]


def _common_start(texts: Iterable[str]) -> str:
    same = takewhile(lambda characters: len(set(characters)) == 1, zip(*texts, strict=False))
    return "".join(characters[0] for characters in same)
