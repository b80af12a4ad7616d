"""Convert between logical order, in which a line is read, and visual order, from left to right in the image.

Visual order follows the Unicode Bidirectional Algorithm (UAX #9) for a line without explicit embeddings, applied to
grapheme clusters so that marks stay with their letters. The mapping is not one-to-one: in a right-to-left line, a Latin
word and an adjacent number look the same in either logical order. In this case, `logical` returns the order in which a
number or bracket to the right of a Latin word belongs to that word.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, groupby

import regex

DIRECTIONS = ("auto", "ltr", "rtl")
RIGHT_TO_LEFT = regex.compile(r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{Bidi_Class=AN}]")
LEFT_TO_RIGHT = regex.compile(r"\p{Bidi_Class=L}")
CLUSTER = regex.compile(r"\X")

# Each bidirectional class is encoded as one letter so that the rules can be written as regular expressions: A is AL,
# E is EN, N is AN and o is ON. Marks and format characters are encoded as "-", which takes the preceding class.
_CODES = {"L": "L", "R": "R", "AL": "A", "EN": "E", "AN": "N", "ES": "+", "CS": ",", "ET": "%", "WS": " ", "S": "|",
          "B": "|", "ON": "o", "": "L"}  # fmt: skip
_STRONG = {"L": "L", "R": "R", "E": "R", "N": "R"}  # adjacent neutrals treat numbers as right-to-left
# levels in left-to-right lines, and in right-to-left lines
_LEVELS = ({"L": 0, "R": 1, "E": 2, "N": 2}, {"L": 2, "R": 1, "E": 2, "N": 2})
_SWAP = {"LEFT": "RIGHT", "RIGHT": "LEFT", "LESS": "GREATER", "GREATER": "LESS"}
_DEPTH = 63  # maximum nesting depth of brackets (BD16)
_ROUNDS = 8


def visual(text: str, direction: str = "auto") -> str:
    """Convert a text from logical to visual order, mirroring brackets in right-to-left runs.

    Args:
        text: text in logical order.
        direction: base direction of the line, "ltr", "rtl" or "auto". "auto" uses the direction of most letters,
            which is the same in logical and visual order, unlike the direction of the first letter.
    """
    if _is_plain(text, direction):
        return text
    clusters = CLUSTER.findall(text)
    levels = _levels(clusters, _is_rtl(text, direction))
    return "".join(_turned(clusters, levels))


def visual_order(text: str, direction: str = "auto") -> list[int]:
    """Return the index in a text of each character of `visual(text)`."""
    if _is_plain(text, direction):
        return list(range(len(text)))
    clusters = CLUSTER.findall(text)
    starts = [0, *accumulate(map(len, clusters))]
    order = _order(_levels(clusters, _is_rtl(text, direction)))
    return [position for index in order for position in range(starts[index], starts[index + 1])]


def logical(seen: str, direction: str = "auto") -> str:
    """Convert a text from visual to logical order, such that `visual(logical(seen)) == seen` if this is possible.

    Args:
        seen: text in visual order.
        direction: base direction of the line (see `visual`).
    """
    if _is_plain(seen, direction):
        return seen
    clusters = CLUSTER.findall(seen)
    return "".join(_turned(clusters, _visual_levels(clusters, _is_rtl(seen, direction))))


def logical_order(seen: str, direction: str = "auto") -> list[int]:
    """Return the position in a text in visual order of each character of `logical(seen, direction)`."""
    if _is_plain(seen, direction):
        return list(range(len(seen)))
    clusters = CLUSTER.findall(seen)
    ends = list(accumulate(map(len, clusters)))
    order = _order(_visual_levels(clusters, _is_rtl(seen, direction)))
    return [place for index in order for place in range(ends[index] - len(clusters[index]), ends[index])]


def _visual_levels(clusters: Sequence[str], rtl: bool) -> list[int]:
    """Return the level of each cluster of a text in visual order."""
    first = None
    for levels in _starts(clusters, rtl):
        for _ in range(_ROUNDS):
            first = first or levels
            found = _levels(_turned(clusters, levels), rtl)
            agreed = [0] * len(levels)
            for index, level in zip(_order(levels), found, strict=True):
                agreed[index] = level
            if agreed == levels:
                return levels
            levels = agreed  # order and levels depend on each other, so repeat until they are consistent
    return first or []  # no logical text has this visual order; recognizer output may be arbitrary


def visual_alphabet(alphabet: Sequence[str], direction: str = "auto") -> list[str]:
    """Extend an alphabet with the missing mirror images of its characters, which may occur in visual order."""
    alphabet = list(alphabet)
    if _is_plain("".join(alphabet), direction):
        return alphabet
    known = set(alphabet)
    return alphabet + [image for c in alphabet if (image := mirrored(c)) not in known]


@lru_cache(4096)
def mirrored(cluster: str) -> str:
    """Return the mirror image of a bracket or sign, as shown in right-to-left text; return other clusters unchanged.

    This is rule L4 of UAX #9. It relies on the fact that the Unicode names of mirror images differ in one word, as in
    LEFT PARENTHESIS and RIGHT PARENTHESIS.
    """
    if not cluster or not unicodedata.mirrored(cluster[0]):
        return cluster
    name = re.sub("|".join(_SWAP), lambda match: _SWAP[match[0]], unicodedata.name(cluster[0]))
    try:
        return unicodedata.lookup(name) + cluster[1:]
    except KeyError:
        return cluster


def _is_plain(text: str, direction: str) -> bool:
    return direction != "rtl" and not RIGHT_TO_LEFT.search(text)


def _is_rtl(text: str, direction: str) -> bool:
    if direction == "auto":
        return len(RIGHT_TO_LEFT.findall(text)) > len(LEFT_TO_RIGHT.findall(text))
    return direction == "rtl"


def _starts(clusters: Sequence[str], rtl: bool) -> Iterator[list[int]]:
    """Yield initial guesses of the levels of a line in visual order.

    The guesses treat the line as if it were in logical order, read from the left or from the right, with and without
    bracket pairs.
    """
    turned = [mirrored(cluster) for cluster in reversed(clusters)]
    for paired in (True, False):
        yield _levels(clusters, rtl, paired)
        yield _levels(turned, rtl, paired)[::-1]


def _turned(clusters: Sequence[str], levels: Sequence[int]) -> list[str]:
    """Reorder clusters by their levels and mirror right-to-left ones; applying this twice restores the input."""
    return [mirrored(clusters[index]) if levels[index] % 2 else clusters[index] for index in _order(levels)]


def _order(levels: Sequence[int]) -> list[int]:
    """Apply rule L2: from the highest level down, reverse each run at that level or above."""
    order = list(range(len(levels)))
    for level in (2, 1):
        start = 0
        for high, run in groupby(value >= level for value in levels):
            end = start + len(list(run))
            if high:
                order[start:end] = order[start:end][::-1]
            start = end
    return order


def _levels(clusters: Sequence[str], rtl: bool, paired: bool = True) -> list[int]:
    """Return the embedding level of each cluster by rules W1-W7, N0-N2, I1, I2 and L1."""
    raw = "".join(_CODES.get(unicodedata.bidirectional(cluster[0]), "-") for cluster in clusters)
    base = "R" if rtl else "L"
    codes = f"{base}{raw}{base}"  # the start and the end of the line
    codes = re.sub("(.)-+", lambda m: m[1] * len(m[0]), codes)  # W1
    codes = re.sub("A[^LR]*", lambda m: m[0].replace("E", "N"), codes).replace("A", "R")  # W2, W3
    codes = re.sub("(?<=E)[+,](?=E)", "E", codes)  # W4
    codes = re.sub("(?<=N),(?=N)", "N", codes)
    codes = re.sub("[%E]+", lambda m: "E" * len(m[0]) if "E" in m[0] else m[0], codes)  # W5
    codes = re.sub("[+,%]", "o", codes)  # W6
    codes = re.sub("L[^R]*", lambda m: m[0].replace("E", "L"), codes)  # W7
    codes = _brackets(codes, clusters, base) if paired else codes  # N0
    codes = re.sub("(?<=L)[o |]+(?=L)", lambda m: "L" * len(m[0]), codes)  # N1
    codes = re.sub("(?<=[REN])[o |]+(?=[REN])", lambda m: "R" * len(m[0]), codes)
    codes = re.sub("[o |]", base, codes)  # N2
    levels = [_LEVELS[rtl][code] for code in codes[1:-1]]  # I1, I2
    for match in re.finditer("[ |]+", raw):  # L1
        end = match.end() if match.end() == len(raw) else match.start() + match[0].rfind("|") + 1
        levels[match.start() : end] = [int(rtl)] * (end - match.start())
    return levels


def _brackets(codes: str, clusters: Sequence[str], base: str) -> str:
    """Apply rule N0: resolve each bracket pair from its content, the base direction and the preceding text."""
    opened: list[tuple[str, int]] = []
    pairs = []
    for position, cluster in enumerate(clusters, start=1):
        if (closing := mirrored(cluster[0])) == cluster[0]:
            continue
        kind = unicodedata.category(cluster[0])
        if kind == "Ps":
            if len(opened) == _DEPTH:
                break
            opened.append((closing, position))
        elif kind == "Pe":
            match = next((i for i in reversed(range(len(opened))) if opened[i][0] == cluster[0]), None)
            if match is not None:
                pairs.append((opened[match][1], position))
                del opened[match:]
    changed = list(codes)
    for left, right in sorted(pairs):
        held = {_STRONG.get(code) for code in changed[left + 1 : right]} - {None}
        if not held:
            continue
        before = next(_STRONG[changed[i]] for i in range(left - 1, -1, -1) if changed[i] in _STRONG)
        changed[left] = changed[right] = base if base in held else before
    return "".join(changed)
