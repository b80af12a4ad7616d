"""Render suspicious references as an HTML page on which a person confirms or corrects them."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from types import MappingProxyType
from typing import Any

from htr_lightning.audit.label_errors import Suspect
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError
from htr_lightning.html import data_url, document, script_json, to_html
from htr_lightning.text.align import edits

HEIGHT, WIDTH = 64, 1100  # maximum size of a picture of a line in pixels
TEMPLATES = files("htr_lightning.audit") / "templates"


def page(
    title: str, suspects: Sequence[Suspect], lines: int, reader: Reader, known: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Render a page that can be used offline, with the keyboard alone, in English or Chinese.

    It saves a table of ids and texts, which `data.texts=FILE` uses in place of the texts of the data.

    Args:
        title: name of the data set.
        suspects: lines to show, most suspicious first.
        lines: number of lines that were ranked.
        reader: training lines, which supply the images.
        known: texts by id that were corrected before, which the saved table repeats.
    """
    data = {"title": title, "total": lines, "known": dict(known), "lines": [_plain(one, reader) for one in suspects]}
    style, script, body = (
        (TEMPLATES / f"label_errors.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    content = f'<script type="application/json" id=data>{script_json(data)}</script>'
    return document(f"Label errors in {title}", body.replace("TITLE", to_html(title)) + content, style, script)


def _plain(suspect: Suspect, reader: Reader) -> dict[str, Any]:
    line = suspect.line
    try:
        image = reader[line.position].image
        picture = data_url(image, HEIGHT, WIDTH) if image.size else ""
    except InputError:
        picture = ""  # it could be read a moment ago
    return {
        "id": line.id,
        "score": round(suspect.score, 3),
        "text": line.reference,
        "reading": line.reading,
        "parts": parts(line.normalized, line.reading),
        "image": picture,
    }


def parts(reference: str, reading: str) -> list[tuple[bool, str, str]]:
    """Return the runs of an alignment: whether both agree, and what stands in the reference and in the reading."""
    runs = groupby(edits(reference, reading), key=lambda edit: edit.correct)
    joined = ((correct, list(run)) for correct, run in runs)
    return [(correct, "".join(e.reference for e in run), "".join(e.hypothesis for e in run)) for correct, run in joined]
