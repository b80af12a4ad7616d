"""Render an audit as an HTML page: tables, and contact sheets for comparing images with their texts by eye."""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import chain, zip_longest

import cv2
import numpy as np
import regex
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.audit.fault import Fault
from htr_lightning.audit.faults import Audit
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError
from htr_lightning.text.codec import name
from htr_lightning.text.normalize import INVISIBLE

HEIGHT, WIDTH = 48, 900  # maximum size of a thumbnail in pixels
FAULTS, SAMPLE = 40, 40  # maximum number of lines shown per kind of fault, and per split
LONGEST = 400  # maximum number of characters shown of a text or message
CODED = regex.compile(rf"[\p{{Cc}}\p{{Cs}}\p{{Cn}}\p{{Zl}}\p{{Zp}}]|{INVISIBLE.pattern}", regex.V1)

QUANTITIES = {  # table headings for measured quantities
    "height": "height in pixels",
    "width": "width in pixels",
    "ink": "fraction of ink",
    "contrast": "contrast in grey levels",
    "characters_per_line": "characters per line",
}

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2em 0 .5em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: .5em 0; } th, td { padding: .2em .9em .2em 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead { color: #666; }
.critical { color: #b3261e; font-weight: 600; } .small { color: #666; font-size: 13px; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(30em, 1fr)); gap: .8em 1.2em; }
.line { border-left: 3px solid #ddd; padding-left: .6em; min-width: 0; overflow: hidden; }
.code { border: 1px solid #ccc; border-radius: 3px; color: #666; font-size: 11px; padding: 0 .2em; }
.text { font-size: 16px; white-space: pre-wrap; }
.line img, figure img { max-width: 100%; display: block; background: #eee; } .none { color: #999; }
"""


def page(
    title: str,
    found: Audit,
    critical: Sequence[str],
    readers: Mapping[str, Reader],
    augmented: tuple[str, UInt8[ndarray, "H W"]] | None = None,
) -> str:
    """Render an audit as a self-contained HTML page, faults first, with at most `FAULTS` lines per kind of fault.

    Args:
        title: name of the data set.
        found: result of the audit.
        critical: kinds of fault that are critical.
        readers: readers keyed by split, which supply the images.
        augmented: name of an augmentation, and a sheet of lines before and after it.
    """
    lines = {(line.split, line.id): line.position for line in found.lines}
    kinds = Counter(fault.kind for fault in found.faults)
    parts = [
        f"<h1>Audit of {_text(title)}</h1>",
        f"<p>{_verdict(kinds, critical)}</p>",
        *(f"<p>{_text(note)}.</p>" for note in found.notes),
        _splits(found),
        _unseen(found),
    ]
    anchors = {kind: f"fault-{number}" for number, kind in enumerate(kinds)}
    if kinds:
        rows = ((f'<a href="#{anchors[kind]}">{_text(kind)}</a>', count, "yes" if kind in critical else "")
                for kind, count in kinds.items())  # fmt: skip
        parts += ["<h2>Faults</h2>", _table(("kind", "count", "critical"), rows)]
    for kind, count in kinds.items():
        some = [fault for fault in found.faults if fault.kind == kind][:FAULTS]
        more = f"<p class=small>{count - len(some)} more in the --json output.</p>" if count > len(some) else ""
        style = " class=critical" if kind in critical else ""
        cards = (_fault(fault, lines.get((fault.split, fault.id)), readers) for fault in some)
        parts.append(f'<h2 id="{anchors[kind]}"{style}>{_text(kind)} ({count})</h2>{_sheet(cards)}{more}')
    for split, reader in readers.items():
        indices = np.linspace(0, len(reader) - 1, min(SAMPLE, len(reader))).astype(int).tolist()
        parts.append(f"<h2>Lines in {split}</h2>{_sheet(_line(reader, index) for index in indices)}")
    if augmented:
        parts.append(
            f"<h2>augment={_text(augmented[0])}: before and after</h2><figure>{_image(augmented[1], None)}</figure>"
        )
    shown = escape(CODED.sub(lambda found: name(found[0]), title))  # a title cannot contain tags
    head = f'<meta charset="utf-8"><title>Audit of {shown}</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _verdict(kinds: Mapping[str, int], critical: Sequence[str]) -> str:
    if critical:
        return f"<span class=critical>Critical: {_text(', '.join(critical))}.</span>"
    return "No critical faults" + ("; some lines are worth a look." if kinds else ".")


def _splits(found: Audit) -> str:
    counts = ("lines", "characters", "groups", "skipped")
    rows = ((split, *(its[key] for key in counts), its["texts_also_in_train"]["lines"] if split != "train" else "")
            for split, its in found.splits.items())  # fmt: skip
    quantiles = (
        (f"{split}: {QUANTITIES.get(title, title)}", *(f"{value:g}" for value in values))
        for split, its in found.splits.items()
        for title, values in its["quantiles"].items()
        if values
    )
    return (
        "<h2>Splits</h2>"
        + _table(("split", *counts, "lines whose text also occurs in train"), rows)
        + _table(("", "min", "5 %", "median", "95 %", "max"), quantiles)
    )


def _unseen(found: Audit) -> str:
    alphabet = _text("".join(found.alphabet), len(found.alphabet))
    text = f"<h2>Alphabet</h2><p>{len(found.alphabet)} characters: <bdi>{alphabet}</bdi></p>"
    if not found.unseen:
        return text
    rows = ((_text(name(character)), ", ".join(f"{split}: {count}" for split, count in its.items()))
            for character, its in found.unseen.items())  # fmt: skip
    return text + _table(("not in the training texts", "lines containing it"), rows)


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def row(cells: Iterable[object], tag: str) -> str:
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    return f"<table><thead>{row(head, 'th')}</thead>{''.join(row(cells, 'td') for cells in rows)}</table>"


def _sheet(cards: Iterable[str]) -> str:
    return f"<div class=sheet>{''.join(cards)}</div>"


def _fault(fault: Fault, index: int | None, readers: Mapping[str, Reader]) -> str:
    note = f"<div class=small>{_text(fault.detail)}</div>"
    if fault.compare is not None:
        split, other = fault.compare
        note += _line(readers[split], other)
    if index is None:
        return f"<div class=line><div class=small>{_text(fault.id)}</div>{note}</div>"
    return _line(readers[fault.split], index, note)


def _line(reader: Reader, index: int, note: str = "") -> str:
    try:
        sample = reader[index]
    except InputError as error:
        return f"<div class=line><div class=small>{_text(str(error))}</div>{note}</div>"
    text = _text(sample.text) if sample.text.strip() else "<span class=none>(no text)</span>"
    return (
        f"<div class=line>{_image(sample.image)}<div class=text dir=auto>{text}</div>"
        f"<div class=small>{_text(sample.id)}</div>{note}</div>"
    )


def _image(image: UInt8[ndarray, "H W"], height: int | None = HEIGHT) -> str:
    if not image.size:
        return ""
    if height is not None and (scale := min(height / image.shape[0], WIDTH / image.shape[1])) < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])
    return f'<img alt="" loading=lazy src="data:image/jpeg;base64,{b64encode(data.tobytes()).decode()}">'


def _text(text: str, longest: int = LONGEST) -> str:
    """Return a text as HTML, cut to a number of characters, with the code of each character that has no picture."""
    shown, end = text[:longest], f" ... ({len(text):,} characters)" if len(text) > longest else ""
    coded = [f"<span class=code>{name(character)}</span>" for character in CODED.findall(shown)]
    return "".join(chain.from_iterable(zip_longest(map(escape, CODED.split(shown)), coded, fillvalue=""))) + end
