"""Compare the lines found on a page with its reference lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import editdistance
import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.data.page.baseline import ABOVE, BELOW, line_distance
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Points
from htr_lightning.errors import InputError
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import transcribe
from htr_lightning.transcription import Transcriber

MIN_IOU = 0.5
BAND = 20  # rows of a band when it is drawn


class LineScore(NamedTuple):
    """How many lines of a page were found; add those of several pages."""

    matched: int
    reference: int
    found: int

    def plus(self, other: "LineScore") -> "LineScore":
        """Return the counts of two sets of pages together."""
        return LineScore(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def recall(self) -> float:
        """The fraction of the reference lines that were found."""
        return self.matched / self.reference if self.reference else 1.0

    @property
    def precision(self) -> float:
        """The fraction of the lines found that are reference lines."""
        return self.matched / self.found if self.found else 1.0


class PageScore(NamedTuple):
    """How well a page is read from its image alone; add those of several pages."""

    lines: LineScore
    characters: int  # of the reference
    edits: int  # see `page_edits`
    order_free: int  # see `order_free_edits`
    given: int  # edits if the reference lines are read

    def plus(self, other: "PageScore") -> "PageScore":
        """Return the counts of two sets of pages together."""
        return PageScore(self.lines.plus(other.lines), *(a + b for a, b in zip(self[1:], other[1:], strict=True)))


def score_page(recognizer: Transcriber, xml: Path, image: Path) -> PageScore:
    """Transcribe the image of a page without its PAGE or ALTO file, and compare the result with this file.

    Raises:
        InputError: if the image or the file cannot be read.
    """
    reference = read_page(xml).lines
    found, given = (
        list(transcribe(recognizer, [source], pages=True))
        for source in (Source(image, image), Source(xml, image, is_page=True))
    )
    if fault := next((line.error for line in found if line.error), None):
        raise InputError(fault)
    texts, read = [line.text for line in reference], [line.text for line in found]
    return PageScore(
        score_lines(reference, [line.line for line in found if line.line is not None]),
        sum(map(len, texts)),
        page_edits(texts, read),
        order_free_edits(texts, read),
        page_edits(texts, [line.text for line in given]),
    )


def score_lines(reference: Sequence[Line], found: Sequence[Line]) -> LineScore:
    """Return how many reference lines were found, by their baselines.

    A baseline stands for the band from 0.7 line distances above it to 0.3 below it, with the line distance of the
    reference. Each reference line is matched with at most one line found, and the reverse, in the order of their
    intersection over union, which must be at least 0.5. Lines without a baseline count as not found.
    """
    distance = line_distance(reference) or line_distance(found) or float(BAND)
    overlaps = band_overlaps([line.baseline for line in reference], [line.baseline for line in found], distance)
    matched = len(match(-overlaps, -MIN_IOU))
    return LineScore(matched, len(reference), len(found))


def match(costs: Float64[ndarray, "R F"], highest: float) -> list[tuple[int, int]]:
    """Return pairs (row, column) of the smallest costs, each row and column at most once, up to a highest cost."""
    pairs: list[tuple[int, int]] = []
    rows, columns = set[int](), set[int]()
    for place in np.argsort(costs, axis=None, kind="stable").tolist():
        row, column = divmod(place, costs.shape[1])
        if costs[row, column] > highest:
            break
        if row not in rows and column not in columns:
            pairs.append((row, column))
            rows.add(row)
            columns.add(column)
    return pairs


def band_overlaps(reference: Sequence[Points], found: Sequence[Points], distance: float) -> Float64[ndarray, "R F"]:
    """Return the intersection over union of the bands of all pairs of baselines.

    Args:
        reference: baselines.
        found: baselines, in the same coordinates.
        distance: thickness of a band, in the unit of the coordinates.
    """
    overlaps = np.zeros((len(reference), len(found)))
    ours, theirs = ([_band(baseline, distance) for baseline in some] for some in (reference, found))
    for row, one in enumerate(ours):
        for column, other in enumerate(theirs):
            if one is not None and other is not None and _near(one, other):
                overlaps[row, column] = _overlap(one, other)
    return overlaps


def _band(baseline: Points, distance: float) -> ndarray | None:
    """Return the polygon of a band, drawn at `BAND` rows."""
    points = np.asarray(baseline, np.float64).reshape(-1, 2) * (BAND / distance)
    if len(points) < 2 or not (along := points[-1] - points[0]).any():
        return None
    up = np.array((along[1], -along[0])) / np.hypot(*along) * BAND
    return np.round(np.concatenate([points + ABOVE * up, (points - BELOW * up)[::-1]])).astype(np.int32)


def _near(one: ndarray, other: ndarray) -> bool:
    return bool((one.min(0) < other.max(0)).all() and (other.min(0) < one.max(0)).all())


def _overlap(one: ndarray, other: ndarray) -> float:
    corner = np.minimum(one.min(0), other.min(0))
    width, height = (np.maximum(one.max(0), other.max(0)) - corner + 1).tolist()
    drawn = [cv2.fillPoly(np.zeros((height, width), np.uint8), [part - corner], 1) for part in (one, other)]
    return cv2.countNonZero(cv2.bitwise_and(*drawn)) / cv2.countNonZero(cv2.bitwise_or(*drawn))


def page_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the edits between the texts of two pages in reading order, with one character for each line break."""
    return int(editdistance.eval("\n".join(reference), "\n".join(hypothesis)))


def order_free_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the fewest edits between the lines of two pages in any order.

    Each line is paired with at most one of the other page; the characters of the others are insertions or deletions.
    """
    size = max(len(reference), len(hypothesis))
    both = [[*texts, *[""] * (size - len(texts))] for texts in (reference, hypothesis)]
    costs = np.array([[editdistance.eval(one, other) for other in both[1]] for one in both[0]], np.float64)
    costs = costs.reshape(size, size)
    return int(sum(costs[row, column] for row, column in enumerate(assign(costs))))


def assign(costs: Float64[ndarray, "N N"]) -> list[int]:
    """Return the column of each row, each column once, with the smallest sum of costs.

    Shortest augmenting paths (Jonker and Volgenant, 1987, "A shortest augmenting path algorithm for dense and sparse
    linear assignment problems").
    """
    size = len(costs)
    rows, columns = np.zeros(size + 1), np.zeros(size + 1)  # potentials
    owner = np.full(size + 1, -1)  # row of each column; the last column starts each path
    for row in range(size):
        owner[size], column = row, size
        least, before, done = np.full(size, np.inf), np.full(size, size), np.zeros(size + 1, bool)
        while owner[column] >= 0:
            done[column] = True
            reduced = costs[owner[column]] - rows[owner[column]] - columns[:size]
            better = ~done[:size] & (reduced < least)
            least[better], before[better] = reduced[better], column
            following = int(np.argmin(np.where(done[:size], np.inf, least)))
            step = least[following]
            rows[owner[done]] += step
            columns[done] -= step
            least[~done[:size]] -= step
            column = following
        while column != size:
            owner[column], column = owner[before[column]], before[column]
    return np.argsort(owner[:size]).tolist()
