"""Find faults in a data set, line by line."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.audit.compare import fit, leaks, mismatches, upside_down
from htr_lightning.audit.fault import (
    A_PHRASE,
    A_WORD,
    BLANK,
    CONTROL,
    CRITICAL,
    CUT,
    DUPLICATE_ID,
    EMPTY,
    ENOUGH,
    FEW,
    FRAMES,
    HIDDEN,
    OUTSIDE,
    POLARITY,
    SIZE,
    SMALL,
    UNREADABLE,
    UNSEEN,
    UPRIGHT,
    WRITER,
    Fault,
    Line,
)
from htr_lightning.audit.measure import measure
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sample import Reader, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.codec import alphabet_of, name
from htr_lightning.text.normalize import INVISIBLE, SPACES, Normalizer


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
    frames: Callable[[UInt8[ndarray, "H W"]], int] | None = None,
    direction: str = "auto",
    advance: Callable[[int], None] = lambda lines: None,
) -> Audit:
    """Find faults in the lines of a data set.

    Args:
        readers: readers keyed by split, in the order train, val, test.
        normalizer: text normalizer of the model.
        preprocess: preprocessing of the model.
        alphabet: characters to learn; None for the characters in the training texts.
        needed: function that returns the number of frames a normalised text needs; None if the model uses no frames.
        frames: function that returns the number of frames the network produces for an image, and may raise ValueError
            for an image of an unusable size; None if the model uses no frames.
        direction: base direction of lines with right-to-left letters; see `text.direction.visual`.
        advance: progress callback, called with the number of lines just processed.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    for split, reader in readers.items():
        for index, (id, text, group) in enumerate(zip(reader.ids, reader.texts, reader.groups, strict=True)):
            try:
                image = reader[index].image
                count = None
                if frames is not None:
                    with suppress(ValueError):  # of an unusable size, which is a fault of its own
                        count = frames(image)
                lines.append(Line(split, index, id, normalizer(text), group, measure(image), count))
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
    if needed is not None:
        faults += frame_faults(lines, needed)
    faults += leaks(lines)
    known = {(fault.id, fault.split) for fault in faults if fault.kind in (BLANK, UPRIGHT, SIZE)}
    usual = [line for line in lines if line.text and line.measures.ink > 0 and (line.id, line.split) not in known]
    if len(usual) < ENOUGH:
        notes.append(f"too few usable lines to detect outliers ({len(usual)}; at least {ENOUGH} are needed)")
    else:
        faults += upside_down(usual)
        fitted, in_visual_order = fit(usual, direction)
        faults += mismatches(usual, fitted)
        if in_visual_order:
            notes.append("right-to-left texts seem to be stored in visual order, from left to right; store them in "
                         "logical order, in which they are read")  # fmt: skip
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
    """Report lines without text, with control, unassigned or invisible characters, or with others than the alphabet."""
    learned = set(alphabet)
    for line in lines:
        if not line.text.strip():
            yield Fault(line.id, EMPTY, "", line.split)
        if controls := sorted({c for c in line.text if c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cs", "Cn")}):
            yield Fault(line.id, CONTROL, f"{', '.join(map(name, controls))} in '{line.text}'", line.split)
        for pattern, option in ((INVISIBLE, "remove_invisible"), (SPACES, "collapse_spaces")):
            if hidden := sorted(set(pattern.findall(line.text))):
                detail = f"{', '.join(map(name, hidden))} (set model.normalizer.{option}=true) in '{line.text}'"
                yield Fault(line.id, HIDDEN, detail, line.split)
        if unknown := sorted(set(line.text) - learned):
            kind = OUTSIDE if line.split == "train" else UNSEEN
            yield Fault(line.id, kind, f"{', '.join(map(name, unknown))} in '{line.text}'", line.split)


def image_faults(lines: Sequence[Line], preprocess: Preprocess) -> Iterator[Fault]:
    """Report images that are blank or cut off letters, or that differ from most in size, polarity or orientation.

    Punctuation may be tiny, and a single dot on wide paper is writing, but not a phrase.
    """
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
        letters = sum(map(str.isalnum, line.text))
        if letters and its.size[0] < 0.3 * height:
            yield Fault(line.id, SMALL, f"{size}; the median height is {height:.0f} pixels", line.split)
        elif its.blank or (its.ink < 0.002 and letters >= A_PHRASE):
            yield Fault(line.id, BLANK, f"contrast of {its.contrast} grey levels, {its.ink:.2%} ink", line.split)
            continue
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


def frame_faults(lines: Sequence[Line], needed: Callable[[str], int]) -> Iterator[Fault]:
    """Report lines whose text needs more frames than the network produces; such lines are excluded from the loss."""
    for line in lines:
        need = needed(line.text)
        if line.frames is not None and need > line.frames:
            detail = f"{len(line.text)} characters need {need} frames, but the image yields {line.frames}"
            yield Fault(line.id, FRAMES, detail, line.split)


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
    removed = Counter(
        character
        for split, reader in readers.items()
        for stored, text in zip(reader.texts, texts[split], strict=True)
        for character in set(INVISIBLE.findall(stored)) - set(text)
    )
    if removed:
        counts = ", ".join(f"{name(character)} in {count:,} lines" for character, count in sorted(removed.items()))
        yield f"model.normalizer.remove_invisible removes characters without ink from the texts: {counts}"
    if len({group for reader in readers.values() for group in reader.groups}) == 1:
        yield "all lines come from one writer or document; this data set cannot show how well a model generalises"


def _in_order(faults: Sequence[Fault], readers: Mapping[str, Reader]) -> list[Fault]:
    kinds = {kind: -count for kind, count in Counter(fault.kind for fault in faults).items()}
    splits = list(readers)
    return sorted(
        dict.fromkeys(faults),
        key=lambda f: (f.kind not in CRITICAL, kinds[f.kind], f.kind, splits.index(f.split), f.id),
    )
