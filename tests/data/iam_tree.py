"""IAM trees in the official layout, made for tests."""

import os
from pathlib import Path

import cv2
import numpy as np

from htr_lightning.data.reader.iam import Iam
from htr_lightning.data.reader.iam_splits import AACHEN_FORMS

HEADER = "#--- lines.txt ---#\r\n#\r\n# format: a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE\r\n#\r\n"
TEXTS = ["A|MOVE|to|stop", "M Ps|tomorrow|.", "0M Ps|say", "a|#|word|,|gone", "nominees|.|He", '"|White|House|"']
SIZE = (32, 160)  # height, width
SPLITS = ("train", "val", "test")
Forms = dict[str, list[str]]


def png(seed: int = 0) -> bytes:
    image = np.full(SIZE, 230, np.uint8)
    cv2.putText(image, f"line {seed}", (5, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 20, 2, cv2.LINE_AA)
    return cv2.imencode(".png", image)[1].tobytes()


def line_row(id: str, number: int) -> str:
    width, height = (-1, -1) if number % 50 == 49 else SIZE[::-1]
    status = ("ok", "ok", "err", "ok", "ok", "ok", "er")[number % 7]
    return f"{id} {status} 154 19 408 746 {width} {height} {TEXTS[number % len(TEXTS)]}\r\n"


def write_tree(root: Path, forms: Forms, lines: dict[str, int], lists: str = "{}.uttlist") -> Forms:
    """A tree with the lines of each split spread over its forms, and its lists; the ids of the lines."""
    (root / "ascii").mkdir(parents=True)
    (root / "line.png").write_bytes(png())
    ids: Forms = {}
    rows = []
    for split in SPLITS:
        each, more = divmod(lines[split], len(forms[split]))
        ids[split] = [f"{f}-{n:02}" for place, f in enumerate(forms[split]) for n in range(each + (place < more))]
        for form in forms[split]:
            (root / "lines" / form.split("-")[0] / form).mkdir(parents=True)
        for id in ids[split]:
            os.link(root / "line.png", image(root, id))
            rows.append(line_row(id, len(rows)))
        name = {"val": "validation"}.get(split, split)
        (root / lists.format(name)).write_text("\n".join(forms[split]) + "\n")
    (root / "ascii" / "lines.txt").write_bytes((HEADER + "".join(rows)).encode())
    return ids


def image(root: Path, id: str) -> Path:
    first, form, *_ = id.split("-")
    return root / "lines" / first / f"{first}-{form}" / f"{id}.png"


def made_up_forms() -> Forms:
    """As many forms as the Aachen split has, ids of several lengths."""
    names = iter(f"{'abcdefgh'[i % 8]}{i % 10:02}-{i:03}{('', 'u', 'x')[i % 3]}" for i in range(2000))
    return {split: [next(names) for _ in range(count)] for split, count in AACHEN_FORMS.items()}


def write_words(root: Path, ids: list[str]) -> None:
    rows = [f"{id} {'err' if n % 5 == 4 else 'ok'} 154 1 2 160 32 NN word{n}\r\n" for n, id in enumerate(ids)]
    (root / "ascii").mkdir(parents=True, exist_ok=True)
    (root / "ascii" / "words.txt").write_bytes("".join(rows).encode())
    for id in ids:
        first, form, *_ = id.split("-")
        path = root / "words" / first / f"{first}-{form}" / f"{id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    (root / "own").mkdir()
    (root / "own" / "train.txt").write_text("\n".join(sorted({"-".join(id.split("-")[:2]) for id in ids})))


def write_form(root: Path, form: str, size: tuple[int, int], lines: dict[str, list[list[tuple[int, ...]]]]) -> None:
    """A form of noise and its XML file: the components (x, y, width, height) of each word of each line."""
    for folder in ("formsA-D", "xml"):
        (root / folder).mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert cv2.imwrite(str(root / "formsA-D" / f"{form}.png"), noise)
    parts = "".join(
        f'<line id="{id}" text="&amp;quot; A" threshold="154">'
        + "".join(
            f'<word id="{id}-{n:02}" tag="AT" text="A">'
            + "".join(f'<cmp x="{x}" y="{y}" width="{w}" height="{h}"/>' for x, y, w, h in components)
            + "</word>"
            for n, components in enumerate(words)
        )
        + "</line>"
        for id, words in lines.items()
    )
    (root / "xml" / f"{form}.xml").write_text(
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<form id="{form}" writer-id="000" width="{size[1]}" '
        f'height="{size[0]}"><machine-printed-part><machine-print-line text="A"/></machine-printed-part>'
        f"<handwritten-part>{parts}</handwritten-part></form>",
        encoding="latin-1",
    )


D04 = {
    "d04-000-00": [[(20, 10, 30, 20), (50, 5, 10, 10)], [(100, 12, 50, 30)]],
    "d04-000-01": [[(20, 50, 60, 30)]],
    "d04-000-02": [[(20, 100, 250, 90)]],
    "d04-000-03": [[(290, 200, 60, 40)]],  # over the right border
    "d04-000-09": [[(20, 250, 100, 30)]],  # lines.txt has no such line
}


def own(root: Path, split: str = "train", **options: object) -> Iam:
    return Iam(root, split, splits="own", **options)  # type: ignore[arg-type]
