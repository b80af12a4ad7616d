"""Find faults in a data set, line by line."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from htr_lightning.audit.fit import Shapes, by_size, encode, in_small_group, lengths_of, swaps
from htr_lightning.audit.measure import Measures, measure, unit, uprightness
from htr_lightning.data.preprocess import MIN_CONTRAST, Preprocess
from htr_lightning.data.sample import Reader, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.codec import alphabet_of, name
from htr_lightning.text.normalize import Normalizer

# Critical faults stop training or invalidate its results.
UNREADABLE, SIZE, FRAMES = "unreadable line", "unusable size", "too few frames for the text"
OUTSIDE, DUPLICATE_ID = "character outside the alphabet", "id in two splits"
LEAK, WRITER = "same image in two splits", "writer in two splits"
CRITICAL = (UNREADABLE, SIZE, FRAMES, OUTSIDE, DUPLICATE_ID, LEAK, WRITER)
# Other faults are worth a look.
EMPTY, CONTROL, UNSEEN = "line without text", "control or unassigned character", "character not in the training texts"
BLANK, SMALL, POLARITY = "blank image", "tiny image", "light ink on dark paper"
UPRIGHT, UPSIDE_DOWN, CUT = "line is vertical", "line is upside down", "letters cut off"
MISMATCH, SWAPPED = "text does not fit its image", "text belongs to another line"

ENOUGH = 100  # minimum number of lines for detecting outliers
FEW = 0.05  # fraction of lines; a property shared by more lines than this is normal for the data set
A_WORD = 4  # characters; lines up to this length are not checked for vertical orientation or similar images
A_PHRASE = 16  # characters; shorter lines are not checked for being upside down


class Fault(NamedTuple):
    """A fault found in a line, a writer or a split."""

    id: str
    kind: str
    detail: str
    split: str
    compare: tuple[str, int] | None = None  # split and position of the line to show next to this one


class Line(NamedTuple):
    """The text and measurements of a line, without its pixels."""

    split: str
    position: int  # index in the reader
    id: str
    text: str  # normalised
    group: str
    measures: Measures


class Audit(NamedTuple):
    """The result of an audit."""

    splits: dict[str, dict[str, Any]]
    alphabet: list[str]
    unseen: dict[str, dict[str, int]]  # characters not in the training texts, with the number of lines in each split
    faults: list[Fault]
    skipped: list[Skipped]
    notes: list[str]
    lines: list[Line]


def audit(
    readers: Mapping[str, Reader],
    normalizer: Normalizer,
    preprocess: Preprocess,
    alphabet: Sequence[str] | None = None,
    needed: Callable[[str], int] | None = None,
    frames: Callable[[int], int] | None = None,
    advance: Callable[[int], None] = lambda lines: None,
) -> Audit:
    """Find faults in the lines of a data set.

    Args:
        readers: readers keyed by split, in the order train, val, test.
        normalizer: text normalizer of the model.
        preprocess: preprocessing of the model.
        alphabet: characters to learn; None for the characters in the training texts.
        needed: function that returns the number of frames a normalised text needs; None if the model uses no frames.
        frames: function that returns the number of frames the network produces for an image of a given width after
            preprocessing, in columns; None if the model uses no frames.
        advance: progress callback, called with the number of lines just processed.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    for split, reader in readers.items():
        for index, (id, text, group) in enumerate(zip(reader.ids, reader.texts, reader.groups, strict=True)):
            try:
                image = reader[index].image
                lines.append(Line(split, index, id, normalizer(text), group, measure(image)))
            except InputError as error:
                faults.append(Fault(id, UNREADABLE, str(error), split))
            advance(1)
    texts = {split: [normalizer(text) for text in reader.texts] for split, reader in readers.items()}
    trained = alphabet_of(texts.get("train", [])) if alphabet is None else list(alphabet)
    skipped = [skipped for reader in readers.values() for skipped in reader.skipped]
    notes: list[str] = []
    for split, reader in readers.items():
        faults += [Fault(left.id, left.kind, left.detail, split) for left in reader.skipped]
        repaired = getattr(reader, "repaired", {})
        if len(repaired) > FEW * len(reader):
            notes.append(f"lines in {split} whose polygon is built from the baseline: {len(repaired)} of {len(reader)}")
        else:
            faults += [Fault(id, how, "", split) for id, how in repaired.items()]
    faults += identity_faults(readers)
    faults += text_faults(lines, trained)
    faults += image_faults(lines, preprocess)
    if needed is not None and frames is not None:
        faults += frame_faults(lines, preprocess, needed, frames)
    faults += leaks(lines)
    known = {(fault.id, fault.split) for fault in faults if fault.kind in (BLANK, UPRIGHT, SIZE)}
    usual = [line for line in lines if line.text and line.measures.ink > 0 and (line.id, line.split) not in known]
    if len(usual) < ENOUGH:
        notes.append(f"too few usable lines to detect outliers ({len(usual)}; at least {ENOUGH} are needed)")
    else:
        faults += upside_down(usual)
        faults += mismatches(usual)
    notes += _notes(readers, texts)
    return Audit(
        splits={split: statistics(split, reader, texts, lines) for split, reader in readers.items()},
        alphabet=trained,
        unseen=_unseen(texts, set(trained)),
        faults=_in_order(faults, readers),
        skipped=skipped,
        notes=notes,
        lines=lines,
    )


def identity_faults(readers: Mapping[str, Reader]) -> Iterator[Fault]:
    """Report ids and writers that occur in several splits; if there is only one writer, only ids are checked."""
    for kind, of in (("ids", DUPLICATE_ID), ("groups", WRITER)):
        counts = {split: Counter(getattr(reader, kind)) for split, reader in readers.items()}
        if kind == "groups" and len(set().union(*counts.values())) == 1:
            continue
        firsts = {split: dict(zip(reversed(getattr(reader, kind)), reversed(reader.ids), strict=True))
                  for split, reader in readers.items()}  # fmt: skip
        ids = {split: set(its.values()) for split, its in firsts.items()}
        for one in sorted(set().union(*(set(a) & set(b) for a, b in combinations(counts.values(), 2)))):
            where = [split for split, its in counts.items() if one in its]
            if kind == "groups" and all(one in ids[split] for split in where):
                continue  # groups that are line ids carry no information about writers, and ids are already reported
            places = (f"lines in {split}: {counts[split][one]} (first: {firsts[split][one]})" for split in where)
            yield Fault(one, of, ", ".join(places), where[-1])


def text_faults(lines: Sequence[Line], alphabet: Sequence[str]) -> Iterator[Fault]:
    """Report lines without text, with control or unassigned characters, or with characters outside the alphabet."""
    learned = set(alphabet)
    for line in lines:
        if not line.text.strip():
            yield Fault(line.id, EMPTY, "", line.split)
        if controls := sorted({c for c in line.text if c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cs", "Cn")}):
            yield Fault(line.id, CONTROL, f"{', '.join(map(name, controls))} in '{line.text}'", line.split)
        if unknown := sorted(set(line.text) - learned):
            kind = OUTSIDE if line.split == "train" else UNSEEN
            yield Fault(line.id, kind, f"{', '.join(map(name, unknown))} in '{line.text}'", line.split)


def image_faults(lines: Sequence[Line], preprocess: Preprocess) -> Iterator[Fault]:
    """Report images that are blank or cut off letters, or that differ from most in size, polarity or orientation."""
    height = float(np.median([line.measures.size[0] for line in lines])) if lines else 0.0
    long = [line.measures.size for line in lines if len(line.text) > A_WORD]
    horizontal = not long or np.mean([width > height for height, width in long]) > 0.5
    dark = not lines or np.mean([line.measures.dark for line in lines]) > 0.5
    limits = {edge: _edge_limit([line.measures.edges[edge] for line in lines]) for edge in (0, 2)}
    for line in lines:
        its = line.measures
        size = f"{its.size[1]} x {its.size[0]} pixels"
        try:
            preprocess.check(its.size)
        except ValueError as error:
            yield Fault(line.id, SIZE, str(error), line.split)
            continue
        if its.contrast < MIN_CONTRAST / 2 or its.ink < 0.002:
            yield Fault(line.id, BLANK, f"contrast of {its.contrast} grey levels, {its.ink:.2%} ink", line.split)
            continue
        if its.size[0] < 0.3 * height:
            yield Fault(line.id, SMALL, f"{size}; the median height is {height:.0f} pixels", line.split)
        if its.dark != dark:
            yield Fault(line.id, POLARITY, "unlike most lines in this data set", line.split)
        if horizontal and its.size[0] > its.size[1] and len(line.text) > A_WORD:
            yield Fault(line.id, UPRIGHT, f"{size} for {len(line.text)} characters", line.split)
        for edge, side in ((0, "top"), (2, "bottom")):
            if len(lines) >= ENOUGH and its.edges[edge] > limits[edge] and len(line.text) >= A_WORD:
                yield Fault(line.id, CUT, f"{its.edges[edge]:.0%} of the {side} edge is ink", line.split)


def _edge_limit(fractions: Sequence[float]) -> float:
    """Return the largest normal fraction of ink along an edge; descenders alone stay below it."""
    return max(0.1, float(np.median(fractions)) + 8 * float(np.subtract(*np.percentile(fractions, (75, 50)))))


def frame_faults(
    lines: Sequence[Line], preprocess: Preprocess, needed: Callable[[str], int], frames: Callable[[int], int]
) -> Iterator[Fault]:
    """Report lines whose text needs more frames than the network produces; such lines are excluded from the loss."""
    for line in lines:
        try:
            preprocess.check(line.measures.size)
        except ValueError:
            continue
        need, has = needed(line.text), frames(preprocess.width(line.measures.size))
        if need > has:
            detail = f"{len(line.text)} characters need {need} frames, but the image yields {has}"
            yield Fault(line.id, FRAMES, detail, line.split)


def leaks(lines: Sequence[Line], alike: float = 0.8, same: float = 0.9) -> Iterator[Fault]:
    """Report lines that also occur in an earlier split, whether identical, rescanned, recropped or recompressed.

    Image fingerprints are compared between lines of similar length. The similarity of lines by two writers who copied
    the same text is well below `alike`. A pair above `same` with different texts also counts as the same image, unless
    there are many such pairs: in printed text, two lines may differ in a single letter.
    """
    splits = list(dict.fromkeys(line.split for line in lines))
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
        for line in later:
            if twin := twins.get(line.position):
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


def mismatches(lines: Sequence[Line], far: float = 5.0) -> Iterator[Fault]:
    """Report lines whose text is far too long or too short for the ink, or fits another line better.

    The text predicts the length of a line in two ways: from the widths of its characters and from their number of
    strokes. If both disagree with the image, the text is wrong; if the line is too wide for its strokes, the image
    shows only part of the line's height.
    """
    codes = encode([line.text for line in lines])
    groups = [line.group for line in lines]
    widths, *room = lengths_of(codes, np.array([line.measures.extent for line in lines]), groups)
    _, *strokes = lengths_of(codes, np.array([line.measures.strokes for line in lines]), groups)
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
    shapes = Shapes(codes, widths, np.stack([line.measures.profile for line in lines]))
    for index, other in swaps(shapes, sizes):
        line, its = lines[index], lines[other]
        detail = f"the text of {its.id} fits better: '{its.text}'"
        yield Fault(line.id, SWAPPED, detail, line.split, (its.split, its.position))


def statistics(split: str, reader: Reader, texts: Mapping[str, Sequence[str]], lines: Sequence[Line]) -> dict[str, Any]:
    """Return counts and quantiles for a split, and the number of its lines whose text also occurs in train."""
    its = [line.measures for line in lines if line.split == split]
    quantiles = {}
    for title, values in (
        ("height", [m.size[0] for m in its]),
        ("width", [m.size[1] for m in its]),
        ("ink", [m.ink for m in its]),
        ("contrast", [m.contrast for m in its]),
        ("characters_per_line", [len(text) for text in texts[split]]),
    ):
        levels = (0, 0.05, 0.5, 0.95, 1)
        quantiles[title] = [round(float(q), 4) for q in np.quantile(values, levels)] if values else []
    trained = set(texts.get("train", ())) if split != "train" else set()
    also = [text for text in texts[split] if text in trained]
    return {
        "lines": len(reader),
        "characters": sum(map(len, texts[split])),
        "groups": len(set(reader.groups)),
        "skipped": len(reader.skipped),
        "texts_also_in_train": {"lines": len(also), "characters": sum(map(len, also))},
        "quantiles": quantiles,
    }


def _unseen(texts: Mapping[str, Sequence[str]], alphabet: set[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for split, its in texts.items():
        for character, count in sorted(Counter(c for text in its for c in set(text) - alphabet).items()):
            found.setdefault(character, {})[split] = count
    return found


def _notes(readers: Mapping[str, Reader], texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    trained = set(texts.get("train", ()))
    for split, its in texts.items():
        also = sum(len(text) for text in its if text in trained)
        if split != "train" and also:
            fraction = also / max(1, sum(map(len, its)))
            yield f"{fraction:.1%} of the characters in {split} are in lines whose text also occurs in train"
    if len({group for reader in readers.values() for group in reader.groups}) == 1:
        yield "all lines come from one writer or document; this data set cannot show how well a model generalises"


def _in_order(faults: Sequence[Fault], readers: Mapping[str, Reader]) -> list[Fault]:
    kinds = {kind: -count for kind, count in Counter(fault.kind for fault in faults).items()}
    splits = list(readers)
    return sorted(
        dict.fromkeys(faults),
        key=lambda f: (f.kind not in CRITICAL, kinds[f.kind], f.kind, splits.index(f.split), f.id),
    )
