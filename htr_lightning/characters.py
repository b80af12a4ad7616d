"""Find where the characters of a transcription lie in the image of its line. Does not import torch.

A forced alignment tells which frames belong to which character. CTC networks mark a character by a peak somewhere on
it, so that its edges lie between peaks: half-way to the peak of a neighbour in the same word, and where the ink begins
and ends beside a space.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8
from numpy import ndarray

from htr_lightning.data.affine import Affine, moved
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.alignment import align
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import visual, visual_order

RULES = 10  # percentile of the ink in a column that is left out, since ruled lines cross all columns
BLANK = 0.3  # ink in a column, relative to the median of columns with ink, below which the column is a gap
GAP = 6  # columns without ink after which a line has ended

Corners = tuple[tuple[float, float], ...]


class Character(NamedTuple):
    """A character of a transcription, and the parallelogram that it occupies in the image, in pixels."""

    text: str
    corners: Corners  # top left, top right, bottom right, bottom left, where the text runs from left to right
    confidence: float


class Placed(NamedTuple):
    """A line as the network sees it."""

    array: Float32[ndarray, "h w"]
    placement: Affine  # map from points of the array to those of the image
    margin: int  # blank columns on either side of the array


def place(preprocess: Preprocess, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Placed]:
    """Return lines as the network sees them; raise ValueError if an image cannot be used."""
    return [Placed(*preprocess.placed(image), preprocess.margin) for image in images]


def locate_all(
    texts: Sequence[str],
    log_probs: Float[ndarray, "B T C"],
    lengths: Int[ndarray, " B"],
    lines: Sequence[Placed],
    codec: Codec,
    direction: str | None,
    calibration: Calibration,
) -> list[tuple[Character, ...]]:
    """Return the characters of the text of each line in a batch; see `locate`."""
    return [
        locate(text, frames[:length], line, codec, direction or "auto", calibration)
        for text, frames, length, line in zip(texts, log_probs, lengths.tolist(), lines, strict=True)
    ]


def locate(
    text: str,
    log_probs: Float[ndarray, "T C"],
    line: Placed,
    codec: Codec,
    direction: str,
    calibration: Calibration,
) -> tuple[Character, ...]:
    """Return the characters of a text in logical order, with the places at which a CTC network saw them.

    The confidence of a character is the calibrated probability of its frames on the most likely path. A character that
    is not in the alphabet lies between its neighbours and has a confidence of 0.

    Args:
        text: transcription, in logical order.
        log_probs: log-probabilities of the frames of the line.
        line: the line.
        codec: mapping between characters and labels.
        direction: base direction of the line (see `text.direction`).
        calibration: calibration of the confidences.

    Returns:
        The characters; or none if the text needs more frames than there are.
    """
    shown = visual(text, direction)
    known = [position for position, character in enumerate(shown) if codec.known(character)]
    aligned = align(log_probs, codec.encode("".join(shown[position] for position in known)))
    if not aligned:
        return ()
    stride = frame_stride(line.array.shape[1], len(log_probs))
    peaks = np.array([(one.start + one.end) / 2 * stride for one in aligned])
    edges = np.full((len(shown), 2), np.nan)
    edges[known] = _edges([shown[position] == " " for position in known], peaks, line)
    for position in range(len(shown)):  # unknown characters, from left to right
        if math.isnan(edges[position, 0]):
            edges[position] = edges[position - 1, 1] if position else edges[known[0], 0]
    certain = dict(zip(known, (calibration.character(math.exp(one.log_prob)) for one in aligned), strict=True))
    found: list[Character | None] = [None] * len(text)
    for position, index in enumerate(visual_order(text, direction)):
        corners = _corners(edges[position], line)
        found[index] = Character(text[index], corners, certain.get(position, 0.0))
    return tuple(character for character in found if character is not None)


def frame_stride(columns: int, frames: int) -> float:
    """Return the number of columns of a frame; a whole number if the last frame may be incomplete or left out."""
    whole = max(1, round(columns / frames))
    return float(whole) if abs(whole * frames - columns) < whole else columns / frames


def _edges(spaces: Sequence[bool], peaks: Float64[ndarray, " L"], line: Placed) -> Float64[ndarray, "L 2"]:
    """Return the left and right edge of each character in columns of the array.

    Args:
        spaces: whether each character is a space.
        peaks: the column at which the network saw each character, in increasing order.
        line: the line.
    """
    written = _written(line)
    middles = (peaks[1:] + peaks[:-1]) / 2
    left, right = np.append(peaks[0], middles), np.append(middles, peaks[-1])
    begin = 0.0  # a gap is that of one space only
    for number, is_space in enumerate(spaces):
        if is_space and 0 < number < len(spaces) - 1:
            gap = _widest_gap(written, max(begin, peaks[number - 1]), peaks[number + 1])
            if gap is not None:
                left[number], begin = right[number - 1], left[number + 1] = gap
                right[number] = begin
    left[0] = len(written) - _line_end(written[::-1], len(written) - min(peaks[0], right[0] - 1))
    right[-1] = _line_end(written, max(peaks[-1], left[-1] + 1))
    return np.stack((left, np.maximum(left, right)), axis=1)


def _written(line: Placed) -> Bool[ndarray, " w"]:
    """Return whether each column of a line contains ink other than a ruled line."""
    ink = line.array.sum(0, dtype=np.float64)
    ink = np.maximum(0, ink - np.percentile(ink[line.margin : len(ink) - line.margin], RULES))
    return ink > BLANK * np.median(ink[ink > 0]) if ink.any() else ink > 0


def _widest_gap(written: Bool[ndarray, " w"], start: float, end: float) -> tuple[float, float] | None:
    """Return the gap between words that is widest between two columns, or None."""
    changes = np.flatnonzero(written[1:] != written[:-1]) + 1
    gaps = [
        (float(a), float(b)) for a, b in pairwise(changes.tolist()) if not written[a]
    ]  # without those at the ends of the line
    widths = [min(b, end) - max(a, start) for a, b in gaps]
    widest = max(range(len(gaps)), key=widths.__getitem__, default=None)
    return None if widest is None or widths[widest] <= 0 else gaps[widest]


def _line_end(written: Bool[ndarray, " w"], peak: float) -> float:
    """Return where the ink ends on the right of the last character, whose peak may lie beside it."""
    inked = np.flatnonzero(written)
    first = int(np.searchsorted(inked, peak, side="right")) - 1
    if first < 0:
        return peak
    inked = inked[first:]
    ends = np.flatnonzero(np.diff(inked) > GAP)
    return float(inked[ends[0] if len(ends) else -1]) + 1


def _corners(edges: Float64[ndarray, "2"], line: Placed) -> Corners:
    (left, right), height = edges.tolist(), line.array.shape[0]
    corners = np.array([(left, 0), (right, 0), (right, height), (left, height)], np.float64)
    return tuple(map(tuple, moved(corners, line.placement).tolist()))
