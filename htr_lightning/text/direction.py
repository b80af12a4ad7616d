"""Logical <-> visual order: the order in which a text is read, and in which it stands in its image from left to right.

Visual order is that of the Unicode Bidirectional Algorithm (UAX #9) for a line without explicit embeddings, taken
over grapheme clusters: a letter and its marks stay together and in their order. It is no one-to-one map: in a
right-to-left line a Latin word and a number look the same whichever is first. Of the logical texts that look the same,
`logical` gives the one in which a number or a bracket to the right of a Latin word belongs to it.
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

# One letter a class, so that the rules are regular expressions: A is AL, E is EN, N is AN, o is ON; "-" (marks and
# format characters) is what stands before it.
_CODES = {"L": "L", "R": "R", "AL": "A", "EN": "E", "AN": "N", "ES": "+", "CS": ",", "ET": "%", "WS": " ", "S": "|",
          "B": "|", "ON": "o", "": "L"}  # fmt: skip
_STRONG = {"L": "L", "R": "R", "E": "R", "N": "R"}  # numbers act as right-to-left on what surrounds them
_LEVELS = ({"L": 0, "R": 1, "E": 2, "N": 2}, {"L": 2, "R": 1, "E": 2, "N": 2})  # of a left-to-right line, of the other
_SWAP = {"LEFT": "RIGHT", "RIGHT": "LEFT", "LESS": "GREATER", "GREATER": "LESS"}
_DEPTH = 63  # of open brackets, as BD16 has it
_ROUNDS = 8


def visual(text: str, direction: str = "auto") -> str:
    """A text in the order of its image, from left to right; brackets in right-to-left words as they look.

    Args:
        text: in logical order.
        direction: of the line: "ltr", "rtl", or "auto": of most of its letters, which unlike the first letter does not
            depend on the order.
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
        direction: as it was given to `visual`.
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
            levels = agreed  # the order gives levels, they give the order: repeat until both agree
    return "".join(first or [])  # a recognizer may read what no text looks like


def visual_alphabet(alphabet: Sequence[str], direction: str = "auto") -> list[str]:
    """The characters that texts over an alphabet have in visual order: mirror images are added behind them."""
    alphabet = list(alphabet)
    if _is_plain("".join(alphabet), direction):
        return alphabet
    return alphabet + [image for c in alphabet if (image := mirrored(c)) not in alphabet]


@lru_cache(4096)
def mirrored(cluster: str) -> str:
    """A bracket or sign as it looks in right-to-left text; anything else as it is (UAX #9, L4).

    Unicode names mirror images alike but for one word, such as LEFT PARENTHESIS and RIGHT PARENTHESIS.
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
    """Levels of a line in visual order as if it were in logical order, from the left, from the right, and so without
    pairs of brackets: wrong only where a rule looks back or brackets seem to be a pair."""
    turned = [mirrored(cluster) for cluster in reversed(clusters)]
    for paired in (True, False):
        yield _levels(clusters, rtl, paired)
        yield _levels(turned, rtl, paired)[::-1]


def _turned(clusters: Sequence[str], levels: Sequence[int]) -> list[str]:
    """The clusters in the other order, given their levels: right-to-left ones mirrored. Its own inverse."""
    return [mirrored(clusters[index]) if levels[index] % 2 else clusters[index] for index in _order(levels)]


def _order(levels: Sequence[int]) -> list[int]:
    """Rule L2: every run of a level or higher is reversed, from the highest level down."""
    order = list(range(len(levels)))
    for level in (2, 1):
        start = 0
        for high, run in groupby(its >= level for its in levels):
            end = start + len(list(run))
            if high:
                order[start:end] = order[start:end][::-1]
            start = end
    return order


def _levels(clusters: Sequence[str], rtl: bool, paired: bool = True) -> list[int]:
    """The embedding level of every cluster: rules W1-W7, N0-N2, I1, I2, L1."""
    raw = "".join(_CODES.get(unicodedata.bidirectional(cluster[0]), "-") for cluster in clusters)
    base = "R" if rtl else "L"
    codes = f"{base}{raw}{base}"  # between the start and the end of the line
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
    """Rule N0: a pair of brackets has the direction of what it holds, seen from the line and from what is before it."""
    open_ones: list[tuple[str, int]] = []
    pairs = []
    for place, cluster in enumerate(clusters, start=1):
        if (closing := mirrored(cluster[0])) == cluster[0]:
            continue
        kind = unicodedata.category(cluster[0])
        if kind == "Ps":
            if len(open_ones) == _DEPTH:
                break
            open_ones.append((closing, place))
        elif kind == "Pe":
            match = next((i for i in reversed(range(len(open_ones))) if open_ones[i][0] == cluster[0]), None)
            if match is not None:
                pairs.append((open_ones[match][1], place))
                del open_ones[match:]
    changed = list(codes)
    for left, right in sorted(pairs):
        held = {_STRONG.get(code) for code in changed[left + 1 : right]} - {None}
        if not held:
            continue
        before = next(_STRONG[changed[i]] for i in range(left - 1, -1, -1) if changed[i] in _STRONG)
        changed[left] = changed[right] = base if base in held else before
    return "".join(changed)
