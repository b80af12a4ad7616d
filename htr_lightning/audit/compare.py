"""Find lines that differ from the other lines of a data set, or are the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from htr_lightning.audit.fault import A_PHRASE, A_WORD, CUT, ENOUGH, LEAK, MISMATCH, SWAPPED, UPSIDE_DOWN, Fault, Line
from htr_lightning.audit.fit import Codes, Shapes, by_size, encode, in_small_group, lengths_of, swaps
from htr_lightning.audit.measure import unit, uprightness
from htr_lightning.text.direction import visual

PAGE_LINES = 4  # lines from which a group is a page or a writer rather than a single line
SURE = 5.0  # standard errors by which right-to-left texts must fit better as stored than in visual order


def leaks(lines: Sequence[Line], alike: float = 0.8, same: float = 0.9) -> Iterator[Fault]:
    """Report lines that also occur in an earlier split, whether identical, rescanned, recropped or recompressed.

    Image fingerprints are compared between lines of similar length. The similarity of lines by two writers who copied
    the same text is well below `alike`. A pair above `same` with different texts also counts as the same image, unless
    there are many such pairs: in printed text, two lines may differ in a single letter. A single pair between two pages
    is not reported unless it is identical, because headings look alike on many pages, whereas a page that occurs twice
    has many such pairs.
    """
    splits = list(dict.fromkeys(line.split for line in lines))
    on_page = Counter((line.split, line.group) for line in lines)
    for number, split in enumerate(splits):
        later = [line for line in lines if line.split == split]
        earlier = [line for line in lines if line.split in splits[:number]]
        pixels = {line.measures.digest: line for line in reversed(earlier) if line.measures.ink > 0}
        twins = {line.position: pixels[line.measures.digest] for line in later if line.measures.digest in pixels}
        found = [(line, twin, likeness) for line, twin, likeness in _alike(later, earlier) if likeness >= alike]
        renamed = [(line, twin) for line, twin, likeness in found if likeness >= same and line.text != twin.text]
        twins = {line.position: twin for line, twin, _ in found if line.text == twin.text} | twins
        if len(renamed) <= max(1, 0.01 * len(later)):
            twins = {line.position: twin for line, twin in renamed} | twins
        pairs = Counter((line.group, twin.group) for line in later if (twin := twins.get(line.position)))
        for line in later:
            if twin := twins.get(line.position):
                is_page = min(on_page[split, line.group], on_page[twin.split, twin.group]) >= PAGE_LINES
                if is_page and pairs[line.group, twin.group] == 1 and line.measures.digest != twin.measures.digest:
                    continue
                text = "same text" if twin.text == line.text else f"labelled '{twin.text}' there"
                yield Fault(line.id, LEAK, f"{twin.id} in {twin.split}, {text}", split, (twin.split, twin.position))


def _alike(later: Sequence[Line], earlier: Sequence[Line]) -> Iterator[tuple[Line, Line, float]]:
    """Yield each line longer than a short word with the most similar line in an earlier split and their similarity."""
    later, earlier = (
        [line for line in some if len(line.text) > A_WORD and line.measures.ink > 0] for some in (later, earlier)
    )
    if not later or not earlier:
        return
    later, earlier = (sorted(some, key=lambda line: line.measures.extent) for some in (later, earlier))
    extents = np.array([line.measures.extent for line in earlier])
    prints = np.stack([line.measures.fingerprint for line in earlier])
    for start in range(0, len(later), 256):
        some = later[start : start + 256]
        first = int(np.searchsorted(extents, some[0].measures.extent / 1.15))
        last = int(np.searchsorted(extents, some[-1].measures.extent * 1.15, side="right"))
        if first == last:
            continue
        likeness = unit(np.stack([line.measures.fingerprint for line in some])) @ unit(prints[first:last]).T
        for line, row in zip(some, likeness, strict=True):
            best = int(row.argmax())
            yield line, earlier[first + best], float(row[best])


def upside_down(lines: Sequence[Line], sure: float = -0.65, far: float = 3.75) -> Iterator[Fault]:
    """Report lines that look like the other lines rotated by 180 degrees.

    Orientation is learned from the data set itself; see `uprightness`. A line is reported if its score is close to -1
    and an outlier among lines of similar length. A false report costs more than a missed line, so short texts are not
    checked, and figures or unusual handwriting, which score close to 0, are not reported.
    """
    lines = [line for line in lines if len(line.text) >= A_PHRASE]
    if len(lines) < ENOUGH:
        return
    scores = uprightness(np.stack([line.measures.shape for line in lines]))
    unusual = by_size(scores, np.array([len(line.text) for line in lines]))
    for index in np.flatnonzero((scores < sure) & (unusual < -far)):
        detail = f"orientation score {scores[index]:.1f} (1: upright, -1: upside down)"
        yield Fault(lines[index].id, UPSIDE_DOWN, detail, lines[index].split)


class Fit(NamedTuple):
    """A model of the characters in a data set, fitted to the lines and their texts."""

    codes: Codes
    room: tuple[Float[ndarray, " N"], Float[ndarray, " N"]]  # deviation of each length, by two scales; see `lengths_of`
    shapes: Shapes


def _fit(lines: Sequence[Line], texts: Sequence[str]) -> Fit:
    """Fit a model of the characters to lines and their texts, which must run from left to right."""
    codes = encode(texts)
    extents = np.array([line.measures.extent for line in lines])
    widths, own, common = lengths_of(codes, extents, [line.group for line in lines])
    return Fit(codes, (own, common), Shapes(codes, widths, np.stack([line.measures.profile for line in lines])))


def fit(lines: Sequence[Line], direction: str = "auto") -> tuple[Fit, bool]:
    """Fit the texts in visual order, and return whether they are already stored in this order.

    Texts with right-to-left letters should be stored in logical order, in which they are read. If the images fit these
    texts better as stored, the texts are already in visual order and are used unchanged.

    Args:
        lines: lines with a text and ink.
        direction: base direction of lines with right-to-left letters; see `text.direction.visual`.
    """
    stored = [line.text for line in lines]
    shown = [visual(text, direction) for text in stored]
    found = _fit(lines, shown)
    turned = np.array([a != b for a, b in zip(shown, stored, strict=True)], dtype=bool)
    if np.count_nonzero(turned) < ENOUGH:
        return found, False
    other = _fit(lines, stored)
    gain = (found.shapes.own - other.shapes.own)[turned]
    in_visual_order = bool(gain.mean() > SURE * gain.std() / np.sqrt(len(gain)))
    return (other, True) if in_visual_order else (found, False)


def mismatches(lines: Sequence[Line], found: Fit, far: float = 5.0) -> Iterator[Fault]:
    """Report lines whose text is far too long or too short for the ink, or fits another line better.

    The text predicts the length of a line in two ways: from the widths of its characters and from their number of
    strokes. If both disagree with the image, the text is wrong; if the line is too wide for its strokes, the image
    shows only part of the line's height.

    Args:
        lines: lines with a text and ink.
        found: model of the characters, fitted to these lines.
        far: minimum deviation, in standard deviations of lines of similar length.
    """
    room, groups = found.room, [line.group for line in lines]
    _, *strokes = lengths_of(found.codes, np.array([line.measures.strokes for line in lines]), groups)
    sizes = np.array([len(line.text) for line in lines])
    excess, flat = (room[0] + strokes[0]) / 2, room[0] - strokes[0]
    of_all = by_size((room[1] + strokes[1]) / 2, sizes), by_size(room[1] - strokes[1], sizes)
    few = in_small_group(groups)  # compared with other lines from small groups
    unusual, cut = (np.where(few, all_, by_size(own, sizes)) for all_, own in zip(of_all, (excess, flat), strict=True))
    for index, line in enumerate(lines):
        about = round(sizes[index] * np.exp(excess[index]))
        if abs(unusual[index]) > far and abs(excess[index]) > np.log(1.3) and abs(about - sizes[index]) >= A_WORD:
            detail = f"number of characters: {sizes[index]}, but the ink suggests about {about}"
            yield Fault(line.id, MISMATCH, detail, line.split)
        if cut[index] > far and flat[index] > np.log(1.3):
            detail = f"{np.exp(flat[index]):.1f} times as wide as usual for its number of strokes"
            yield Fault(line.id, CUT, detail, line.split)
    for index, other in swaps(found.shapes, sizes):
        line, its = lines[index], lines[other]
        detail = f"the text of {its.id} fits better: '{its.text}'"
        yield Fault(line.id, SWAPPED, detail, line.split, (its.split, its.position))
