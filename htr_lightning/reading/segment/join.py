"""Join pieces of writing into lines, and put lines into reading order."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from htr_lightning.reading.segment.pieces import LONG, Piece, forward, weighted_median

GAP = 4.0  # maximum distance between pieces of a line, in thicknesses
OVERLAP = 1.0  # maximum length in thicknesses by which they may overlap
ACROSS = 0.6  # maximum offset across the line at which they meet, in thicknesses
TURN = 20.0  # maximum angle between them in degrees
MIN_LENGTH = 1.4  # of a line in thicknesses
THIN = 0.55  # minimum thickness of a line, relative to the typical thickness
COLUMN = 5.0  # minimum length in thicknesses of the lines that show where columns are
GUTTER = 4.0  # maximum width of a gutter that has to be looked for, in thicknesses
MIN_ENDS = 3  # minimum number of lines that end, and of those that start, at a gutter
CERTAIN = 0.9  # probability of writing above which a line goes on across a gutter
SHARED = 0.2  # minimum overlap of lines in the same column, as a fraction of the shorter one
NEAR = 5.0  # maximum distance of lines in the same group in thicknesses
CUT_OFF = 1.5  # distance from the side of the picture in thicknesses at which a line is cut off
CUT = 0.3  # maximum length of a line cut off by the side of the picture, relative to the typical length


def typical_thickness(pieces: Sequence[Piece]) -> float:
    """Return the thickness of most of the writing, or 0 without writing."""
    if not pieces:
        return 0.0
    return weighted_median(*np.array([(piece.thickness, piece.length) for piece in pieces]).T)


def main_angle(pieces: Sequence[Piece]) -> float:
    """Return the direction of most of the writing in degrees, from -135 to 45."""
    long = [piece for piece in pieces if piece.length > LONG * piece.thickness]
    if not long:
        return 0.0
    steps = np.array([forward(piece.step) for piece in long])
    lengths = np.hypot(*steps.T)
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    steep = bool(lengths[np.abs(angles) > 45].sum() > lengths.sum() / 2)
    chosen = (np.abs(angles) > 45) == steep
    return weighted_median(angles[chosen], lengths[chosen])


def join(pieces: Sequence[Piece], writing: Float32[ndarray, "H W"]) -> list[Piece]:
    """Return the lines that pieces form, without what is too small or cut off by the side of the picture.

    Args:
        pieces: pieces of lines, in any order.
        writing: map in which they were found.
    """
    pieces = _aligned(pieces)
    between = gutters(pieces)
    for x in between:
        pieces = [part for piece in pieces for part in _split(piece, x, writing)]
    following = _links(pieces, between)
    starts = set(range(len(pieces))) - set(following.values())
    lines = []
    for start in sorted(starts):
        chain = [start]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        lines.append(_joined([pieces[index] for index in chain]))
    typical = typical_thickness(lines)
    length = weighted_median(*np.array([(line.length, line.length) for line in lines]).T) if lines else 0.0
    return [
        line
        for line in lines
        if line.length >= MIN_LENGTH * line.thickness
        and line.thickness >= THIN * typical
        and not (line.length < CUT * length and _is_cut(line, writing.shape[1]))
    ]


def _is_cut(line: Piece, width: int) -> bool:
    left, right = line.middle[:, 0].min(), line.middle[:, 0].max()
    return bool(left < CUT_OFF * line.thickness or right > width - 1 - CUT_OFF * line.thickness)


def _aligned(pieces: Sequence[Piece]) -> list[Piece]:
    """Give each piece that is too short to have a direction the one of the nearest long piece."""
    long = [piece for piece in pieces if piece.length > LONG * piece.thickness]
    if not long:
        return list(pieces)
    points = np.concatenate([piece.middle for piece in long])
    owner = np.repeat(np.arange(len(long)), [len(piece.middle) for piece in long])
    found = []
    for piece in pieces:
        if piece.length <= LONG * piece.thickness:
            centre = piece.middle.mean(0)
            near = long[owner[np.argmin(np.hypot(*(points - centre).T))]]
            along = near.step / near.length
            if abs(along @ piece.step) < 0.9 * piece.length:
                half = max(piece.length, piece.thickness) / 2 * along
                down = np.array((-along[1], along[0])) * piece.thickness / 2
                middle = np.stack([centre - half, centre + half])
                piece = Piece(middle, middle + down, piece.thickness)
        found.append(piece)
    return found


def gutters(pieces: Sequence[Piece]) -> list[float]:
    """Return where one column ends and another one begins: where several lines start just after several have ended."""
    long = [piece for piece in pieces if piece.length > COLUMN * piece.thickness]
    if not long:
        return []
    thick = typical_thickness(long)
    start, end = (np.array([piece.middle[place, 0] for piece in long]) for place in (0, -1))
    starts = (np.abs(start[:, None] - start[None]) < GUTTER / 2 * thick).sum(1)
    ends = ((end[None] > start[:, None] - GUTTER * thick) & (end[None] < start[:, None] + thick)).sum(1)
    count = np.minimum(starts, ends)
    found: list[float] = []
    for index in np.argsort(-count, kind="stable"):
        if count[index] < MIN_ENDS:
            break
        if all(abs(x - start[index]) > 2 * GUTTER * thick for x in found):
            found.append(float(start[index]))
    return found


def _split(piece: Piece, x: float, writing: Float32[ndarray, "H W"]) -> list[Piece]:
    """Return the parts of a piece before and after a gutter if there is less writing there than beside it."""
    reach = GUTTER / 2 * piece.thickness
    after = piece.middle[:, 0] >= x - reach / 4
    inside = piece.middle[0, 0] < x - 2 * reach and piece.middle[-1, 0] > x + 2 * reach
    if not inside or after.sum() < 2 or (~after).sum() < 2:
        return [piece]
    columns = np.arange(max(0, int(x - reach)), min(writing.shape[1], int(x + reach) + 1))
    rows = np.interp(columns, *piece.middle[np.argsort(piece.middle[:, 0])].T).round().astype(int)
    if writing[rows.clip(0, len(writing) - 1), columns].min() > CERTAIN:
        return [piece]
    return [Piece(piece.middle[part], piece.bottom[part], piece.thickness) for part in (~after, after)]


def _links(pieces: Sequence[Piece], apart: Sequence[float]) -> dict[int, int]:
    """Return, for each piece that is continued by another one, the index of that one."""
    if len(pieces) < 2:
        return {}
    start, end = (np.array([piece.middle[place] for piece in pieces]) for place in (0, -1))
    step, thick = end - start, np.array([piece.thickness for piece in pieces])
    length = np.maximum(np.hypot(*step.T), 1e-6)
    along = step / length[:, None]
    scale = np.minimum(thick[:, None], thick[None])
    cosine = along @ along.T
    both = step[:, None] + step[None]
    both /= np.maximum(np.hypot(both[..., 0], both[..., 1]), 1e-6)[..., None]
    between = start[None] - end[:, None]
    gap = (between * both).sum(2) / scale
    across = np.abs(between[..., 0] * -both[..., 1] + between[..., 1] * both[..., 0]) / scale
    short = (length < LONG * thick)[:, None] | (length < LONG * thick)[None]
    near = (gap > -OVERLAP) & (gap < GAP) & (across < ACROSS) & (short | (cosine > np.cos(np.radians(TURN))))
    near &= (np.maximum(thick[:, None], thick[None]) < 2 * scale) & (cosine > 0)
    for x in apart:
        near &= ~((end[:, None, 0] < x + thick[:, None]) & (start[None, :, 0] > x - GUTTER / 2 * thick[None]))
    np.fill_diagonal(near, False)
    following: dict[int, int] = {}
    taken: set[int] = set()
    cost = np.where(near, np.maximum(gap, 0) + across, np.inf)
    for place in np.argsort(cost, axis=None)[: np.count_nonzero(near)].tolist():
        one, other = divmod(place, len(pieces))
        if one in following or other in taken:
            continue
        last = other
        while last in following:
            last = following[last]
        if last != one:
            following[one] = other
            taken.add(other)
    return following


def _joined(pieces: Sequence[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    step = pieces[-1].middle[-1] - pieces[0].middle[0]
    middle, bottom = (np.concatenate(points) for points in zip(*(piece[:2] for piece in pieces), strict=True))
    order = np.argsort(middle @ step, kind="stable")
    thickness = sum(piece.thickness * piece.length for piece in pieces) / sum(piece.length for piece in pieces)
    return Piece(middle[order], bottom[order], thickness)


def stacked(lines: Sequence[Piece]) -> int:
    """Return the number of lines above or below the longest one, which is included."""
    if not lines:
        return 0
    ends = np.array([(line.middle[:, 0].min(), line.middle[:, 0].max()) for line in lines])
    left, right = ends[np.argmax(ends[:, 1] - ends[:, 0])]
    shared = np.minimum(ends[:, 1], right) - np.maximum(ends[:, 0], left)
    return int((shared > SHARED * (ends[:, 1] - ends[:, 0])).sum())


def reading_order(lines: Sequence[Piece]) -> list[list[int]]:
    """Return the indices of lines in reading order, in groups that form a column or paragraph.

    A line comes before another one if it is above it and they overlap horizontally, or if it is to the left of it and
    no line that overlaps both is between them (Breuel, 2003, "High performance document layout analysis").
    """
    count = len(lines)
    if not count:
        return []
    start, end = (np.array([line.middle[place] for line in lines]) for place in (0, -1))
    left, right = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    y = (start[:, 1] + end[:, 1]) / 2
    slope = (end - start)[:, 1] / np.where(np.abs((end - start)[:, 0]) < 1, np.inf, (end - start)[:, 0])
    first, last = np.maximum(left[:, None], left[None]), np.minimum(right[:, None], right[None])
    overlap = last - first > SHARED * np.minimum((right - left)[:, None], (right - left)[None])
    heights = y[:, None] + slope[:, None] * ((first + last) / 2 - (left + right)[:, None] / 2)
    before = overlap & (np.where(overlap, heights, y[:, None]) < np.where(overlap, heights.T, y[None]))
    for one in range(count):
        between = (y > np.minimum(y[one], y)[:, None]) & (y < np.maximum(y[one], y)[:, None])
        blocked = (overlap & overlap[one] & between).any(1)
        before[one] |= ~overlap[one] & (left[one] < left) & ~blocked
    np.fill_diagonal(before, False)
    order = _sorted(before, y)
    thick = typical_thickness(lines)
    key, keys = 0, [0]
    for one, other in pairwise(order):
        key += not (overlap[one, other] and 0 < y[other] - y[one] < NEAR * thick)
        keys.append(key)
    return [[index for index, _ in group] for _, group in groupby(zip(order, keys, strict=True), lambda pair: pair[1])]


def _sorted(before: Bool[ndarray, "N N"], y: ndarray) -> list[int]:
    """Return indices so that each comes after those before it, if possible below the last one or else the uppermost."""
    order: list[int] = []
    waiting = before.sum(0)
    left = np.ones(len(y), bool)
    for _ in range(len(y)):
        free = left & (waiting == 0)
        if order and (below := free & before[order[-1]]).any():
            free = below
        if free.any():
            index = int(np.argmin(np.where(free, y, np.inf)))
        else:  # a circle
            index = int(np.argmin(np.where(left, waiting, len(y))))
        order.append(index)
        left[index] = False
        waiting = waiting - before[index]
    return order
