"""Turn the characters of a transcribed line into words on its page."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.characters import Character
from htr_lightning.data.affine import Affine, moved
from htr_lightning.data.page.page import Points, Word
from htr_lightning.text.direction import CLUSTER


def words_of(
    characters: Sequence[Character], to_page: Affine, outline: Points, confidences: Sequence[float] = ()
) -> tuple[Word, ...]:
    """Return the words of a line, separated by spaces, in logical order.

    The outline of a word is the part of the outline of its line between its left and its right edge.

    Args:
        characters: characters of the text of the line.
        to_page: map from points of the image of the line to those of the page.
        outline: polygon of the line.
        confidences: confidence of each word; by default, the geometric mean of those of its characters.
    """
    words = [list(group) for is_space, group in groupby(characters, key=lambda one: one.text == " ") if not is_space]
    found = tuple(_word(word, to_page, outline, _clusters(word)) for word in words)
    if len(found) != len(confidences):
        return found
    return tuple(word._replace(confidence=its) for word, its in zip(found, confidences, strict=True))


def _clusters(characters: Sequence[Character]) -> list[Sequence[Character]]:
    """Return the characters of a word, each with the marks that follow it."""
    clusters, start = [], 0
    for cluster in CLUSTER.findall("".join(one.text for one in characters)):
        clusters.append(characters[start : start + len(cluster)])
        start += len(cluster)
    return clusters


def _word(
    characters: Sequence[Character], to_page: Affine, outline: Points, parts: Sequence[Sequence[Character]] = ()
) -> Word:
    corners = np.array([one.corners for one in characters])
    left, right = corners[corners[:, 0, 0].argmin()], corners[corners[:, 1, 0].argmax()]
    quad = moved(np.stack((left[0], right[1], right[2], left[3])), to_page)
    found = _inside(outline, quad)
    area = found if len(found) > 2 else [(float(x), float(y)) for x, y in quad]
    confidence = float(np.exp(np.mean(np.log([max(one.confidence, 1e-9) for one in characters]))))
    glyphs = tuple(_word(part, to_page, area) for part in parts)
    return Word("".join(one.text for one in characters), area, min(1.0, confidence), glyphs)


def _inside(polygon: Points, quad: Float64[ndarray, "4 2"]) -> Points:
    """Return the part of a polygon in a convex quadrilateral (Sutherland and Hodgman, 1974, "Reentrant polygon
    clipping")."""
    (ax, ay), (bx, by), (cx, cy) = quad[:3]
    turn = 1.0 if (bx - ax) * (cy - by) - (by - ay) * (cx - bx) >= 0 else -1.0
    points = [(float(x), float(y)) for x, y in polygon]
    for (x0, y0), (x1, y1) in zip(quad.tolist(), np.roll(quad, -1, axis=0).tolist(), strict=True):
        distance = [turn * ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) for x, y in points]
        kept: Points = []
        for index, (x, y) in enumerate(points):
            before, here = distance[index - 1], distance[index]
            if (before >= 0) != (here >= 0):
                (px, py), part = points[index - 1], before / (before - here)
                kept.append((px + part * (x - px), py + part * (y - py)))
            if here >= 0:
                kept.append((x, y))
        points = kept
    return list(dict.fromkeys(points))  # a corner on an edge is found twice
