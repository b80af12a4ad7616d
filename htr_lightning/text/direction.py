"""Logical and visual order of a line: the order in which it is read, and its order from left to right in the image.

Visual order follows the Unicode Bidirectional Algorithm (UAX #9) for a line without explicit embeddings, applied to
grapheme clusters: a letter keeps its marks, in their order. The mapping is not one-to-one: in a right-to-left line, a
Latin word and a number look the same whichever comes first. Of the logical texts that look alike, `logical` returns the
one in which a number or bracket to the right of a Latin word belongs to that word.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import regex

DIRECTIONS = ("auto", "ltr", "rtl")
RIGHT_TO_LEFT = regex.compile(r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}\p{Bidi_Class=AN}]")
LEFT_TO_RIGHT = regex.compile(r"\p{Bidi_Class=L}")
CLUSTER = regex.compile(r"\X")

# One letter per class, so that the rules become regular expressions: A is AL, E is EN, N is AN, o is ON; "-" (marks and
# format characters) takes the class of what precedes it.
_CODES = {"L": "L", "R": "R", "AL": "A", "EN": "E", "AN": "N", "ES": "+", "CS": ",", "ET": "%", "WS": " ", "S": "|",
          "B": "|", "ON": "o", "": "L"}  # fmt: skip
_STRONG = {"L": "L", "R": "R", "E": "R", "N": "R"}  # numbers count as right-to-left for their surroundings
_LEVELS = (
    {"L": 0, "R": 1, "E": 2, "N": 2},
    {"L": 2, "R": 1, "E": 2, "N": 2},
)  # in ltr and rtl lines
_SWAP = {"LEFT": "RIGHT", "RIGHT": "LEFT", "LESS": "GREATER", "GREATER": "LESS"}
_DEPTH = 63  # maximum number of open brackets (BD16)
_ROUNDS = 8


def visual(text: str, direction: str = "auto") -> str:
    """A text in visual order, from left to right, with brackets mirrored in right-to-left runs.

    Args:
        text: in logical order.
        direction: of the line: "ltr", "rtl" or "auto", that of most of its letters; unlike the direction of the first
            letter, it does not depend on the order.
    """
    if _is_plain(text, direction):
        return text
    clusters = CLUSTER.findall(text)
    levels = _levels(clusters, _is_rtl(text, direction))
    return "".join(_turned(clusters, levels))


def logical(seen: str, direction: str = "auto") -> str:
    """A text that looks like `seen`: `visual(logical(seen)) == seen`.

    Args:
        seen: in visual order.
        direction: as given to `visual`.
    """
    if _is_plain(seen, direction):
        return seen
    rtl = _is_rtl(seen, direction)
    clusters = CLUSTER.findall(seen)
    first = None
    for levels in _starts(clusters, rtl):
        for _ in range(_ROUNDS):
            text = _turned(clusters, levels)
            first = first or text
            found = _levels(text, rtl)
            agreed = [0] * len(levels)
            for index, level in zip(_order(levels), found, strict=True):
                agreed[index] = level
            if agreed == levels:
                return "".join(text)
            levels = agreed  # order and levels determine each other: repeat until they agree
    return "".join(first or [])  # a recognizer may output what is the visual order of no text


def visual_alphabet(alphabet: Sequence[str], direction: str = "auto") -> list[str]:
    """The alphabet of visual order: the given characters, then the mirror images that are missing."""
    alphabet = list(alphabet)
    if _is_plain("".join(alphabet), direction):
        return alphabet
    return alphabet + [image for c in alphabet if (image := mirrored(c)) not in alphabet]


@lru_cache(4096)
def mirrored(cluster: str) -> str:
    """A bracket or sign as shown in right-to-left text; anything else is returned unchanged (UAX #9, L4).

    The Unicode names of mirror images differ in one word, as in LEFT PARENTHESIS and RIGHT PARENTHESIS.
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
    """First guesses of the levels of a line in visual order: as if it were in logical order from the left or the right,
    with and without bracket pairs. They are wrong only where a rule looks back or brackets merely seem to pair."""
    turned = [mirrored(cluster) for cluster in reversed(clusters)]
    for paired in (True, False):
        yield _levels(clusters, rtl, paired)
        yield _levels(turned, rtl, paired)[::-1]


def _turned(clusters: Sequence[str], levels: Sequence[int]) -> list[str]:
    """The clusters reordered by their levels, right-to-left ones mirrored; an involution."""
    return [mirrored(clusters[index]) if levels[index] % 2 else clusters[index] for index in _order(levels)]


def _order(levels: Sequence[int]) -> list[int]:
    """Rule L2: reverse every run at a level or higher, from the highest level down."""
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
    """The embedding level of every cluster: rules W1-W7, N0-N2, I1, I2, L1."""
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
    """Rule N0: a bracket pair takes the direction of its content, given that of the line and of the text before it."""
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
