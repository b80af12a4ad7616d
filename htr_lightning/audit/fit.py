"""How well texts fit their images, by the widths and shapes of characters that the set itself tells: no network."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int
from numpy import ndarray

from htr_lightning.audit.measure import COLUMNS

CHARACTERS = 255  # modelled one by one, the most frequent; the others share one model
OF_ONE_HAND = 5  # lines that tell how wide a writer writes
BAND = 10  # columns of a profile by which handwriting may run ahead of the model or behind it
BENT = 2.0  # cost of running ahead or behind, against a squared difference of profiles of variance 1
CHUNK = 2048  # pairs compared at once
PAGE = 10  # neighbours among the worse third of lines: those of about a page
A_LINE = 16  # characters; less is too little to tell whose text it is
MOST = 700  # lines compared each with each


class Codes(NamedTuple):
    """Texts as numbers of modelled characters."""

    texts: list[Int[ndarray, " _"]]
    kinds: int  # of the numbers


def encode(texts: Sequence[str]) -> Codes:
    """Texts as numbers, the most frequent characters first and all beyond `CHARACTERS` as the last number."""
    frequent = [character for character, _ in Counter("".join(texts)).most_common(CHARACTERS)]
    numbers = {character: number for number, character in enumerate(frequent)}
    codes = [np.array([numbers.get(c, len(numbers)) for c in text], dtype=np.int64) for text in texts]
    return Codes(codes, len(numbers) + 1)


def lengths_of(
    codes: Codes, lengths: Float[ndarray, " N"], groups: Sequence[str]
) -> tuple[Float[ndarray, " C"], Float[ndarray, " N"], Float[ndarray, " N"]]:
    """What every character adds to a line's length, and how far each line is from what its text says.

    A ridge regression of the lengths on the counts of characters, the mean length being the prior; fitted again
    without the lines that are far off, and with every group of at least `OF_ONE_HAND` lines at its own scale.

    Args:
        codes: of the texts, none of them empty.
        lengths: positive, in any unit.
        groups: of the lines.

    Returns:
        Length of every character; the logarithm of measured by expected length of every line, at the scale of its
        group; and the same at the scale of all.
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
            if len(members) >= OF_ONE_HAND:
                shift[kind] = np.median(common[members])
        scale = np.exp(shift[group])
        residual = common - shift[group]
        weight = (abs(residual) < 3 * deviation(residual)).astype(float)
    return each, residual, common


def of_few(groups: Sequence[str]) -> Bool[ndarray, " N"]:
    """Whether a line's group has too few lines to have a scale of its own."""
    counts = Counter(groups)
    return np.array([counts[group] < OF_ONE_HAND for group in groups])


def deviation(values: Float[ndarray, " N"]) -> float:
    """The standard deviation that the median absolute deviation stands for."""
    return max(1e-6, 1.4826 * float(np.median(abs(values - np.median(values)))))


def by_size(values: Float[ndarray, " N"], sizes: Int[ndarray, " N"], bins: int = 12) -> Float[ndarray, " N"]:
    """Values in deviations from the median of lines of like size: short lines scatter more than long ones."""
    order = np.argsort(sizes, kind="stable")
    parts = [part for part in np.array_split(order, max(1, min(bins, len(values) // 20))) if len(part)]
    centres = [float(np.mean(sizes[part])) for part in parts]
    middles = np.interp(sizes, centres, [float(np.median(values[part])) for part in parts])
    return (values - middles) / np.interp(sizes, centres, [deviation(values[part]) for part in parts])


class Shapes:
    """What the columns of every character look like, and with it how well any text fits any line.

    The characters of a text are laid out over the line's ink by their widths; the mean profile of all columns that
    fall to a character is its shape.

    Args:
        codes: of the lines' own texts.
        widths: of the characters.
        profiles: of the lines.
    """

    def __init__(self, codes: Codes, widths: Float[ndarray, " C"], profiles: Float16[ndarray, "N 3 128"]) -> None:
        self.widths = widths
        self.profiles = profiles
        places = np.stack([self._places(text) for text in codes.texts])
        flat = profiles.transpose(0, 2, 1)
        self.shapes = np.zeros((codes.kinds, 3), np.float32)
        for zone in range(3):
            total = np.bincount(places.ravel(), weights=flat[..., zone].ravel(), minlength=codes.kinds)
            self.shapes[:, zone] = total / (10 + np.bincount(places.ravel(), minlength=codes.kinds))
        self.expected = np.stack([self._profile(row) for row in places]).astype(np.float16)

    def costs(self, lines: Int[ndarray, " P"], texts: Int[ndarray, " P"]) -> Float32[ndarray, " P"]:
        """The mean squared difference of line and text along the best alignment, for pairs of their numbers."""
        parts = [slice(start, start + CHUNK) for start in range(0, len(lines), CHUNK)]
        pairs = ((self.profiles[lines[part]], self.expected[texts[part]]) for part in parts)
        costs = [align(*(of.astype(np.float32) for of in pair)) for pair in pairs]
        return np.concatenate(costs) if costs else np.zeros(0, np.float32)

    def _places(self, text: Int[ndarray, " L"]) -> Int[ndarray, " 128"]:
        ends = self.widths[text].cumsum()
        return text[np.searchsorted(ends, (np.arange(COLUMNS) + 0.5) / COLUMNS * ends[-1]).clip(0, len(text) - 1)]

    def _profile(self, places: Int[ndarray, " 128"]) -> Float32[ndarray, "3 128"]:
        profile = self.shapes[places].T
        profile = profile - profile.mean(1, keepdims=True)
        return profile / np.maximum(profile.std(1, keepdims=True), 1e-3)


def align(
    lines: Float32[ndarray, "P F T"], texts: Float32[ndarray, "P F T"], band: int = BAND
) -> Float32[ndarray, " P"]:
    """Mean squared difference of profiles along the best monotone alignment within `band` columns.

    At every column of the line the text goes on by no, one or two columns (Sakoe and Chiba, 1978, "Dynamic programming
    algorithm optimization for spoken word recognition", with the band and the slope constraint); both ends are free by
    two columns.
    """
    offsets = np.arange(-band, band + 1)
    far = np.float32(1e9)
    total = np.where(abs(offsets) <= 2, np.float32(0), far)[None].repeat(len(lines), 0)
    padded = np.pad(texts, ((0, 0), (0, 0), (band, band)), constant_values=1e4)
    for column in range(lines.shape[2]):
        difference = padded[:, :, column : column + len(offsets)] - lines[:, :, column : column + 1]
        best = total.copy()
        np.minimum(best[:, 1:], total[:, :-1] + BENT, out=best[:, 1:])
        np.minimum(best[:, :-1], total[:, 1:] + BENT, out=best[:, :-1])
        total = best + np.square(difference).mean(1)
    return total[:, abs(offsets) <= 2].min(1) / lines.shape[2]


def swaps(
    shapes: Shapes, sizes: Int[ndarray, " N"], near: float = 0.35, anywhere: float = 0.6
) -> Iterator[tuple[int, int]]:
    """Pairs of lines whose texts, of like length, fit better when they are exchanged.

    Tried are neighbours in reading order, the worse third of the lines of about a page, and the worst tenth of all;
    the more pairs are tried, the more has to be gained.
    """
    count = len(sizes)
    own = shapes.costs(np.arange(count), np.arange(count))
    order = np.argsort(-by_size(own, sizes))
    worse, worst = np.sort(order[: count // 3]), order[: min(MOST, count // 10)]
    tried = [np.stack([np.arange(count - step), np.arange(step, count)]) for step in (1, 2, 3)]
    tried += [np.stack([worse[:-step], worse[step:]]) for step in range(1, min(PAGE, len(worse)))]
    tried.append(worst[np.stack(np.triu_indices(len(worst), 1))])
    first, second = np.unique(np.sort(np.concatenate(tried, axis=1), axis=0), axis=1)
    close = second - first <= 3 * PAGE
    like = abs(np.log(sizes[first] / sizes[second])) < np.where(close, np.log(3), np.log(1.5))
    like &= np.minimum(sizes[first], sizes[second]) >= A_LINE
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
