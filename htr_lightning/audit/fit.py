"""Measure how well texts fit their images, using character widths and shapes estimated from the data set itself."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int
from numpy import ndarray

from htr_lightning.audit.measure import COLUMNS

CHARACTERS = 255  # number of frequent characters modelled separately; all others share one model
MIN_GROUP = 5  # minimum number of lines for estimating the width of a writer's characters
BAND = 10  # maximum number of columns by which a line's profile may lead or lag the model
SHIFT_COST = 2.0  # cost of shifting by one column, relative to the squared difference of profiles with variance 1
CHUNK = 2048  # number of pairs compared at a time
PAGE = 10  # number of neighbours compared among the worst-fitting third of lines; about one page
MIN_CHARACTERS = 16  # shorter texts cannot be distinguished
MAX_PAIRED = 700  # maximum number of lines compared pairwise


class Codes(NamedTuple):
    """Texts encoded as indices of modelled characters."""

    texts: list[Int[ndarray, " _"]]
    kinds: int  # number of distinct indices


def encode(texts: Sequence[str]) -> Codes:
    """Encode texts as character indices, most frequent first; characters beyond `CHARACTERS` share the last index."""
    frequent = [character for character, _ in Counter("".join(texts)).most_common(CHARACTERS)]
    numbers = {character: number for number, character in enumerate(frequent)}
    codes = [np.array([numbers.get(c, len(numbers)) for c in text], dtype=np.int64) for text in texts]
    return Codes(codes, len(numbers) + 1)


def lengths_of(
    codes: Codes, lengths: Float[ndarray, " N"], groups: Sequence[str]
) -> tuple[Float[ndarray, " C"], Float[ndarray, " N"], Float[ndarray, " N"]]:
    """Estimate each character's contribution to line length, and how far each line deviates from its expected length.

    Fits a ridge regression of line length on character counts, shrunk towards the average length per character and
    refitted with outliers excluded and a separate scale for each group of at least `MIN_GROUP` lines.

    Args:
        codes: encoded texts, none of them empty.
        lengths: line lengths; positive, in any unit.
        groups: group of each line, such as its writer.

    Returns:
        The length per character; the log ratio of measured to expected length for each line, using its group's scale;
        and the same ratio using the common scale.
    """
    counts = np.zeros((len(lengths), codes.kinds))
    for row, text in zip(counts, codes.texts, strict=True):
        np.add.at(row, text, 1)
    size = counts.sum(1)
    mean = float(np.median(lengths / size))
    scale, weight = np.ones(len(lengths)), np.ones(len(lengths))
    kinds, group = np.unique(np.asarray(groups), return_inverse=True)
    for _ in range(3):
        rows = counts * (scale * weight / np.sqrt(size))[:, None]
        excess = (lengths - mean * scale * size) * weight / np.sqrt(size)
        each = mean + np.linalg.solve(rows.T @ rows + 2 * np.eye(codes.kinds), rows.T @ excess)
        each = each.clip(mean / 5, mean * 5)
        common = np.log(lengths / (counts @ each))
        shift = np.zeros(len(kinds))
        for kind, members in enumerate(np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])):
            if len(members) >= MIN_GROUP:
                shift[kind] = np.median(common[members])
        scale = np.exp(shift[group])
        residual = common - shift[group]
        weight = (abs(residual) < 3 * deviation(residual)).astype(float)
    return each, residual, common


def in_small_group(groups: Sequence[str]) -> Bool[ndarray, " N"]:
    """Return, for each line, whether its group is too small for estimating a separate scale."""
    counts = Counter(groups)
    return np.array([counts[group] < MIN_GROUP for group in groups])


def deviation(values: Float[ndarray, " N"]) -> float:
    """Estimate the standard deviation from the median absolute deviation."""
    return max(1e-6, 1.4826 * float(np.median(abs(values - np.median(values)))))


def by_size(values: Float[ndarray, " N"], sizes: Int[ndarray, " N"], bins: int = 12) -> Float[ndarray, " N"]:
    """Standardise each value relative to lines of similar size, because short lines vary more than long ones."""
    order = np.argsort(sizes, kind="stable")
    parts = [part for part in np.array_split(order, max(1, min(bins, len(values) // 20))) if len(part)]
    centres = [float(np.mean(sizes[part])) for part in parts]
    middles = np.interp(sizes, centres, [float(np.median(values[part])) for part in parts])
    return (values - middles) / np.interp(sizes, centres, [deviation(values[part]) for part in parts])


class Shapes:
    """A model of each character's typical column profile, which scores how well any text fits any line.

    The characters of a text are laid out over the ink of a line according to their widths; the shape of a character is
    the mean profile of all columns assigned to it.

    Args:
        codes: encoded texts of the lines, from left to right.
        widths: width of each character.
        profiles: column profiles of the lines.
    """

    def __init__(self, codes: Codes, widths: Float[ndarray, " C"], profiles: Float16[ndarray, "N 3 128"]) -> None:
        self.widths = widths
        self.profiles = profiles
        assigned = np.stack([self._assigned(text) for text in codes.texts])
        flat = profiles.transpose(0, 2, 1)
        self.shapes = np.zeros((codes.kinds, 3), np.float32)
        for zone in range(3):
            total = np.bincount(assigned.ravel(), weights=flat[..., zone].ravel(), minlength=codes.kinds)
            self.shapes[:, zone] = total / (10 + np.bincount(assigned.ravel(), minlength=codes.kinds))
        self.expected = np.stack([self._profile(row) for row in assigned]).astype(np.float16)

    @cached_property
    def own(self) -> Float32[ndarray, " N"]:
        """The cost of each line with its own text; see `costs`."""
        every = np.arange(len(self.profiles))
        return self.costs(every, every)

    def costs(self, lines: Int[ndarray, " P"], texts: Int[ndarray, " P"]) -> Float32[ndarray, " P"]:
        """Return the mean squared difference along the best alignment of each line with the corresponding text."""
        parts = [slice(start, start + CHUNK) for start in range(0, len(lines), CHUNK)]
        pairs = ((self.profiles[lines[part]], self.expected[texts[part]]) for part in parts)
        costs = [align(*(of.astype(np.float32) for of in pair)) for pair in pairs]
        return np.concatenate(costs) if costs else np.zeros(0, np.float32)

    def _assigned(self, text: Int[ndarray, " L"]) -> Int[ndarray, " 128"]:
        ends = self.widths[text].cumsum()
        return text[np.searchsorted(ends, (np.arange(COLUMNS) + 0.5) / COLUMNS * ends[-1]).clip(0, len(text) - 1)]

    def _profile(self, assigned: Int[ndarray, " 128"]) -> Float32[ndarray, "3 128"]:
        profile = self.shapes[assigned].T
        profile = profile - profile.mean(1, keepdims=True)
        return profile / np.maximum(profile.std(1, keepdims=True), 1e-3)


def align(
    lines: Float32[ndarray, "P F T"], texts: Float32[ndarray, "P F T"], band: int = BAND
) -> Float32[ndarray, " P"]:
    """Return the mean squared difference of profiles along the best monotone alignment within `band` columns.

    At each column of the line, the text advances by zero, one or two columns, as in the algorithm with band and slope
    constraints by Sakoe and Chiba (1978, "Dynamic programming algorithm optimization for spoken word recognition").
    Both ends may be off by up to two columns.
    """
    offsets = np.arange(-band, band + 1)
    far = np.float32(1e9)
    total = np.where(abs(offsets) <= 2, np.float32(0), far)[None].repeat(len(lines), 0)
    padded = np.pad(texts, ((0, 0), (0, 0), (band, band)), constant_values=1e4)
    for column in range(lines.shape[2]):
        difference = padded[:, :, column : column + len(offsets)] - lines[:, :, column : column + 1]
        best = total.copy()
        np.minimum(best[:, 1:], total[:, :-1] + SHIFT_COST, out=best[:, 1:])
        np.minimum(best[:, :-1], total[:, 1:] + SHIFT_COST, out=best[:, :-1])
        total = best + np.square(difference).mean(1)
    return total[:, abs(offsets) <= 2].min(1) / lines.shape[2]


def swaps(
    shapes: Shapes, sizes: Int[ndarray, " N"], near: float = 0.35, anywhere: float = 0.6
) -> Iterator[tuple[int, int]]:
    """Yield pairs of lines whose texts are of similar length and fit better when swapped, each pair in both orders.

    Candidates are neighbours in reading order, nearby lines among the worst-fitting third, and all pairs among the
    worst-fitting tenth. Distant pairs are more numerous, so swapping their texts must improve the fit by more.
    """
    count = len(sizes)
    own = shapes.own
    order = np.argsort(-by_size(own, sizes))
    worse, worst = np.sort(order[: count // 3]), order[: min(MAX_PAIRED, count // 10)]
    tried = [np.stack([np.arange(count - step), np.arange(step, count)]) for step in (1, 2, 3)]
    tried += [np.stack([worse[:-step], worse[step:]]) for step in range(1, min(PAGE, len(worse)))]
    tried.append(worst[np.stack(np.triu_indices(len(worst), 1))])
    first, second = np.unique(np.sort(np.concatenate(tried, axis=1), axis=0), axis=1)
    close = second - first <= 3 * PAGE
    like = abs(np.log(sizes[first] / sizes[second])) < np.where(close, np.log(3), np.log(1.5))
    like &= np.minimum(sizes[first], sizes[second]) >= MIN_CHARACTERS
    first, second, close = first[like], second[like], close[like]
    forth, back = shapes.costs(first, second), shapes.costs(second, first)
    better = own[first] + own[second] - forth - back
    enough = (better > np.where(close, near, anywhere)) & (forth < own[first]) & (back < own[second])
    told: set[int] = set()
    for pair in np.flatnonzero(enough)[np.argsort(-better[enough])]:
        one, other = int(first[pair]), int(second[pair])
        if not told & {one, other}:
            told |= {one, other}
            yield one, other
            yield other, one
