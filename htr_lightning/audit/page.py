"""Render an audit as an HTML page: tables, and contact sheets for comparing images with their texts by eye."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.audit.fault import Fault
from htr_lightning.audit.faults import Audit
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError
from htr_lightning.html import MAX_SIDE, data_url, document, to_html
from htr_lightning.text.codec import name

HEIGHT, WIDTH = 48, 900  # maximum size of a thumbnail in pixels
FAULTS, SAMPLE = 40, 40  # maximum number of lines shown per kind of fault, and per split

QUANTITIES = {  # table headings for measured quantities
    "height": "height in pixels",
    "width": "width in pixels",
    "ink": "fraction of ink",
    "contrast": "contrast in grey levels",
    "characters_per_line": "characters per line",
}


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
        f"<h1>Audit of {to_html(title)}</h1>",
        f"<p>{_verdict(kinds, critical)}</p>",
        *(f"<p>{to_html(note)}.</p>" for note in found.notes),
        _splits(found),
        _unseen(found),
    ]
    anchors = {kind: f"fault-{number}" for number, kind in enumerate(kinds)}
    if kinds:
        rows = ((f'<a href="#{anchors[kind]}">{to_html(kind)}</a>', count, "yes" if kind in critical else "")
                for kind, count in kinds.items())  # fmt: skip
        parts += ["<h2>Faults</h2>", _table(("kind", "count", "critical"), rows)]
    for kind, count in kinds.items():
        some = [fault for fault in found.faults if fault.kind == kind][:FAULTS]
        more = f"<p class=small>{count - len(some)} more in the --json output.</p>" if count > len(some) else ""
        style = " class=critical" if kind in critical else ""
        cards = (_fault(fault, lines.get((fault.split, fault.id)), readers) for fault in some)
        parts.append(f'<h2 id="{anchors[kind]}"{style}>{to_html(kind)} ({count})</h2>{_sheet(cards)}{more}')
    for split, reader in readers.items():
        indices = np.linspace(0, len(reader) - 1, min(SAMPLE, len(reader))).astype(int).tolist()
        parts.append(f"<h2>Lines in {split}</h2>{_sheet(_line(reader, index) for index in indices)}")
    if augmented:
        sheet = _image(augmented[1], MAX_SIDE, MAX_SIDE)
        parts.append(f"<h2>augment={to_html(augmented[0])}: before and after</h2><figure>{sheet}</figure>")
    return document(f"Audit of {title}", "".join(parts))


def _verdict(kinds: Mapping[str, int], critical: Sequence[str]) -> str:
    if critical:
        return f"<span class=critical>Critical: {to_html(', '.join(critical))}.</span>"
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
    alphabet = to_html("".join(found.alphabet), len(found.alphabet))
    text = f"<h2>Alphabet</h2><p>{len(found.alphabet)} characters: <bdi>{alphabet}</bdi></p>"
    if not found.unseen:
        return text
    rows = ((to_html(name(character)), ", ".join(f"{split}: {count}" for split, count in its.items()))
            for character, its in found.unseen.items())  # fmt: skip
    return text + _table(("not in the training texts", "lines containing it"), rows)


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def row(cells: Iterable[object], tag: str) -> str:
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<div class=wide><table><thead>{row(head, 'th')}</thead>{body}</table></div>"


def _sheet(cards: Iterable[str]) -> str:
    return f"<div class=sheet>{''.join(cards)}</div>"


def _fault(fault: Fault, index: int | None, readers: Mapping[str, Reader]) -> str:
    note = f"<div class=small>{to_html(fault.detail)}</div>"
    if fault.compare is not None:
        split, other = fault.compare
        note += _line(readers[split], other)
    if index is None:
        return f"<div class=line><div class=small>{to_html(fault.id)}</div>{note}</div>"
    return _line(readers[fault.split], index, note)


def _line(reader: Reader, index: int, note: str = "") -> str:
    try:
        sample = reader[index]
    except InputError as error:
        return f"<div class=line><div class=small>{to_html(str(error))}</div>{note}</div>"
    text = to_html(sample.text) if sample.text.strip() else "<span class=none>(no text)</span>"
    return (
        f"<div class=line>{_image(sample.image)}<div class=text dir=auto>{text}</div>"
        f"<div class=small>{to_html(sample.id)}</div>{note}</div>"
    )


def _image(image: UInt8[ndarray, "H W"], height: int = HEIGHT, width: int = WIDTH) -> str:
    return f'<img alt="" loading=lazy src="{data_url(image, height, width)}">' if image.size else ""
