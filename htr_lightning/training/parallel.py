"""Draw the jobs of a sweep as parallel coordinates: an axis for each value that varies, and one for the score."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from htr_lightning.html import document, visible

WIDTH, HEIGHT, LEFT, TOP = 160, 340, 70, 46  # of the space between two axes, of an axis, and of the margins, in pixels
LOG_FROM = 20  # ratio of the largest to the smallest number from which an axis is logarithmic
SHOWN = 16  # characters of a tick
STYLE = """
svg { font-size: 12px; } text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.axis { stroke: var(--faint); } .job { fill: none; stroke-width: 2; opacity: .75; }
.best { stroke-width: 4; opacity: 1; }
.job:hover { stroke-width: 6; opacity: 1; }
"""


class Axis(NamedTuple):
    """An axis, with the height of each value from 0 to 1 and the texts of some heights."""

    name: str
    heights: dict[str, float]
    ticks: dict[str, float]


def page(jobs: Sequence[tuple[str, Mapping[str, str], float]], title: str) -> str:
    """Return a page with the parallel coordinates of jobs.

    Args:
        jobs: name, values that vary and score of each finished job; the lowest score is the best.
        title: title of the page.
    """
    keys = list(dict.fromkeys(key for _, values, _ in jobs for key in values))
    scores = [repr(score) for _, _, score in jobs]
    axes = [_axis(key, [values.get(key, "") for _, values, _ in jobs]) for key in keys]
    last = _axis("best validation score", scores)
    axes.append(last._replace(ticks={f"{100 * float(text):.2f} %": height for text, height in last.ticks.items()}))
    body = []
    best = min(score for _, _, score in jobs)
    for (name, values, score), text in sorted(zip(jobs, scores, strict=True), key=lambda one: -one[0][2]):
        heights = [axis.heights[values.get(key, "")] for key, axis in zip(keys, axes, strict=False)]
        points = " ".join(f"{LEFT + column * WIDTH},{_y(height):.1f}"
                          for column, height in enumerate([*heights, last.heights[text]]))  # fmt: skip
        told = f"{name}: {', '.join(f'{key}={value}' for key, value in values.items())}: {score:.2%}"
        body.append(f'<polyline class="job{" best" * (score == best)}" points="{points}" '
                    f'stroke="{_colour(last.heights[text])}"><title>{_text(told)}</title></polyline>')  # fmt: skip
    for column, axis in enumerate(axes):
        x = LEFT + column * WIDTH
        above = TOP - 26 + 14 * (column % 2)  # in turns, since names may be long
        body += [f'<path class="axis" d="M{x} {TOP}V{TOP + HEIGHT}"/>',
                 f'<text x="{x}" y="{above}" text-anchor="middle">{_text(axis.name)}</text>']  # fmt: skip
        for text, height in axis.ticks.items():
            shown = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
            body.append(f'<text x="{x + 6}" y="{_y(height) + 4:.1f}">{_text(shown)}</text>')
    size = f'width="{2 * LEFT + WIDTH * (len(axes) - 1) + 30}" height="{TOP + HEIGHT + 20}"'
    drawn = f'<svg {size} role="img" aria-label="parallel coordinates">{"".join(body)}</svg>'
    about = "<p class=small>A line is a job; the best one is thick. Point at a line to see its values.</p>"
    return document(title, f"<h1>{escape(visible(title))}</h1>{about}<div class=wide>{drawn}</div>", STYLE)


def _axis(name: str, values: Sequence[str]) -> Axis:
    """Return an axis of numbers, or of words at equal distances."""
    distinct = list(dict.fromkeys(values))
    try:
        numbers = {text: float(text) for text in distinct}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError
    except ValueError:
        words = sorted(distinct)
        heights = {text: index / max(1, len(words) - 1) for index, text in enumerate(words)}
        return Axis(name, heights, heights)
    low, high = min(numbers.values()), max(numbers.values())
    if low > 0 and high / low >= LOG_FROM:
        numbers = {text: math.log(number) for text, number in numbers.items()}
        low, high = math.log(low), math.log(high)
    heights = {text: (number - low) / (high - low) if high > low else 0.5 for text, number in numbers.items()}
    ticks: dict[str, float] = {}
    for text, height in sorted(heights.items(), key=lambda one: (one[1] not in (0.0, 1.0), one[1])):
        if all(abs(height - other) * HEIGHT > 14 for other in ticks.values()):
            ticks[text] = height
    return Axis(name, heights, ticks)


def _y(height: float) -> float:
    return TOP + (1 - height) * HEIGHT


def _colour(height: float) -> str:
    """Return a colour from blue, for the best score, to orange."""
    mixed = (round(a + height * (b - a)) for a, b in zip((0, 114, 178), (230, 120, 0), strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _text(text: str) -> str:
    return escape(visible(text))
