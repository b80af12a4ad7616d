"""A copy of copiste in which faults are planted, and the list of them."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np

from htr_lightning.audit import fault as audit

ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"


class Planted(NamedTuple):
    """A fault: what was done, the kinds that name it, and the ids that must be named."""

    what: str
    kinds: tuple[str, ...]  # of which the audit names one
    ids: list[str]


class Spoiler:
    """Copies a folder by links and replaces the pages that it spoils; no page is spoilt twice.

    Args:
        source: copiste.
        folder: of the copy.
        seed: which pages and lines.
    """

    def __init__(self, source: Path, folder: Path, seed: int = 0) -> None:
        self.folder, self.random, self.planted = folder, random.Random(seed), list[Planted]()
        for part, ending in (("alto", "xml"), ("jpg", "jpg")):
            (folder / part).mkdir(parents=True)
            for path in (source / part).glob(f"*.{ending}"):
                (folder / part / path.name).symlink_to(path)
        rows = (source / "split.tsv").read_text(encoding="utf-8").splitlines()[1:]
        self.splits = dict(row.split("\t") for row in rows)
        self.free = {
            split: sorted(page for page, its in self.splits.items() if its == split)
            for split in ("train", "val", "test")
        }
        for pages in self.free.values():
            self.random.shuffle(pages)

    def take(self, split: str = "train") -> str:
        """A page that nothing was done to yet, of a writer of one page."""
        pages = self.free[split]
        return pages.pop(next(i for i, page in enumerate(pages) if page[-2] != "_" and len(self.lines(page)) > 8))

    def image(self, page: str) -> np.ndarray:
        return cv2.imread(str(self.folder / "jpg" / f"{page}.jpg"), cv2.IMREAD_GRAYSCALE)

    def write_image(self, page: str, pixels: np.ndarray, quality: int = 90) -> None:
        path = self.folder / "jpg" / f"{page}.jpg"
        path.unlink()
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])

    def tree(self, page: str) -> ElementTree.ElementTree:
        return ElementTree.parse(self.folder / "alto" / f"{page}.xml")

    def write_tree(self, page: str, tree: ElementTree.ElementTree) -> None:
        path = self.folder / "alto" / f"{page}.xml"
        path.unlink()
        tree.write(path, encoding="utf-8", xml_declaration=True)

    def lines(self, page: str, least: int = 25) -> list[str]:
        """Ids of lines of running text."""
        return [e.get("ID", "") for e in self.tree(page).iter(f"{ALTO}TextLine") if len(text(e)) >= least]

    def line(self, tree: ElementTree.ElementTree, id: str) -> ElementTree.Element:
        return next(e for e in tree.iter(f"{ALTO}TextLine") if e.get("ID") == id)

    def plant(self, what: str, kinds: Sequence[str], page: str, *lines: str) -> None:
        self.planted.append(Planted(what, tuple(kinds), [f"copiste/{page}/{line}" for line in lines]))

    def some_line(self, split: str = "train") -> tuple[str, ElementTree.ElementTree, ElementTree.Element]:
        page = self.take(split)
        tree = self.tree(page)
        return page, tree, self.line(tree, self.random.choice(self.lines(page)[1:-1]))

    def spoil(self) -> list[Planted]:
        """Plant everything."""
        for split in ("train", "test"):
            self.missing_image(split)
            self.cut_short(split)
            self.other_size(split)
        for split in ("train", "val", "test"):
            self.two_points(split)
            self.no_text(split)
            self.upside_down(split)
            self.inverted(split)
            self.on_paper(split)
            self.half_height(split)
        for _ in range(2):
            self.strange_character()
            self.too_long()
            self.same_id()
            self.swapped()
            self.same_page()
        self.same_writer("test")
        self.same_writer("val")
        rows = [f"{page}\t{split}" for page, split in sorted(self.splits.items())]
        (self.folder / "spoilt.tsv").write_text("\n".join(["page\tsplit", *rows]) + "\n", encoding="utf-8")
        return self.planted

    def missing_image(self, split: str) -> None:
        page = self.take(split)
        (self.folder / "jpg" / f"{page}.jpg").unlink()
        self.plant("image missing", ["missing image"], page, *self.lines(page))

    def cut_short(self, split: str) -> None:
        page = self.take(split)
        path = self.folder / "jpg" / f"{page}.jpg"
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 2])
        self.plant("image cut short", ["unusable image"], page, *self.lines(page))

    def other_size(self, split: str) -> None:
        page = self.take(split)
        pixels = self.image(page)
        self.write_image(page, cv2.resize(pixels, None, fx=0.5, fy=0.5))
        self.plant("image of another size", ["unusable image"], page, *self.lines(page))

    def two_points(self, split: str) -> None:
        page, tree, line = self.some_line(split)
        set_polygon(line, polygon(line)[:2])
        self.write_tree(page, tree)
        self.plant(
            "two points",
            ["polygon created from the baseline", "polygon too thin, replaced using the baseline"],
            page,
            line.get("ID", ""),
        )

    def no_text(self, split: str) -> None:
        page, tree, line = self.some_line(split)
        set_text(line, "")
        self.write_tree(page, tree)
        self.plant("no text", [audit.EMPTY], page, line.get("ID", ""))

    def strange_character(self) -> None:
        page, tree, line = self.some_line("test")
        set_text(line, text(line)[:10] + "ǂ" + text(line)[10:])
        self.write_tree(page, tree)
        self.plant("strange character", [audit.UNSEEN], page, line.get("ID", ""))

    def too_long(self) -> None:
        page, tree, line = self.some_line()
        set_text(line, " ".join([text(line)] * 12))
        self.write_tree(page, tree)
        self.plant("text too long", [audit.FRAMES], page, line.get("ID", ""))

    def same_id(self) -> None:
        page, tree, line = self.some_line()
        other = self.line(tree, next(id for id in self.lines(page) if id != line.get("ID")))
        other.set("ID", line.get("ID", ""))
        self.write_tree(page, tree)
        self.plant("id twice", ["duplicate id"], page, line.get("ID", ""))

    def swapped(self) -> None:
        """The texts of two lines of unlike length on one page."""
        page = self.take()
        tree = self.tree(page)
        lines = sorted((self.line(tree, id) for id in self.lines(page, 12)), key=lambda e: len(text(e)))
        short, long = lines[0], lines[-1]
        if len(text(long)) < 1.6 * len(text(short)):
            return self.swapped()  # another page
        texts = text(short), text(long)
        set_text(short, texts[1])
        set_text(long, texts[0])
        self.write_tree(page, tree)
        return self.plant(
            "texts swapped", [audit.MISMATCH, audit.SWAPPED], page, short.get("ID", ""), long.get("ID", "")
        )

    def within(self, split: str, what: str, kind: str, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        """Change the pixels inside one line's polygon."""
        page, _, line = self.some_line(split)
        pixels = self.image(page)
        points = np.array(polygon(line), np.int32)
        (left, top), (right, bottom) = points.min(0).clip(0), points.max(0)
        box = pixels[top:bottom, left:right]
        inside = np.zeros(box.shape, np.uint8)
        cv2.fillPoly(inside, [points - (left, top)], 1)
        changed = change(box.copy(), inside > 0)
        box[inside > 0] = changed[inside > 0]
        self.write_image(page, pixels)
        self.plant(what, [kind], page, line.get("ID", ""))

    def upside_down(self, split: str) -> None:
        def turn(box: np.ndarray, inside: np.ndarray) -> np.ndarray:
            box[~inside] = np.median(box[inside])
            return box[::-1, ::-1]

        self.within(split, "upside down", audit.UPSIDE_DOWN, turn)

    def inverted(self, split: str) -> None:
        self.within(split, "inverted", audit.POLARITY, lambda box, inside: 255 - box)

    def on_paper(self, split: str) -> None:
        """A polygon moved to where the page is empty."""
        page, tree, line = self.some_line(split)
        pixels = self.image(page)
        points = np.array(polygon(line))
        width, height = np.minimum(np.ptp(points, 0).astype(int), (600, 60))
        smooth = cv2.GaussianBlur(pixels, (0, 0), 2).astype(np.float32)
        depth = cv2.erode(smooth, np.ones((height, width)), anchor=(0, 0)) - cv2.blur(
            smooth, (int(width), int(height)), anchor=(0, 0)
        )
        depth = depth[: pixels.shape[0] - height - 20, : pixels.shape[1] - width - 20]
        top, left = np.unravel_index(depth[20:, 20:].argmax(), depth[20:, 20:].shape)
        left, top = int(left) + 20, int(top) + 20
        set_polygon(line, [(left, top), (left + width, top), (left + width, top + height), (left, top + height)])
        self.write_tree(page, tree)
        self.plant("polygon on paper", [audit.BLANK, "polygon and baseline do not overlap"], page, line.get("ID", ""))

    def half_height(self, split: str) -> None:
        """Only what is below, or above, the middle of the letters."""
        page, tree, line = self.some_line(split)
        points = np.array(polygon(line))
        (left, top), (right, bottom) = points.min(0).astype(int), points.max(0).astype(int)
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [points.astype(np.int32) - (left, top)], 1)
        ink = (self.image(page)[top:bottom, left:right] < 128) & (inside > 0)
        middle = top + (ink.sum(1) @ np.arange(len(ink))) / ink.sum()
        keep = max if self.random.random() < 0.5 else min
        set_polygon(line, [(x, keep(y, middle)) for x, y in points.tolist()])
        self.write_tree(page, tree)
        self.plant("half the height", [audit.CUT, audit.MISMATCH], page, line.get("ID", ""))

    def same_page(self) -> None:
        """A test page that is a training page: shifted by pixels, lighter, compressed anew."""
        page, original = self.take("test"), self.take("train")
        pixels = np.roll(self.image(original), (3, 5), (0, 1))
        self.write_image(page, (pixels * 0.93 + 15).astype(np.uint8), quality=40)
        tree = self.tree(original)
        self.write_tree(page, tree)
        self.plant("page in two splits", [audit.LEAK], page, *self.lines(page))

    def same_writer(self, split: str) -> None:
        pages = [page for page in self.free["train"] if page[-2:] == "_2" and f"{page[:-2]}_1" in self.free["train"]]
        self.free["train"].remove(pages[0])
        self.splits[pages[0]] = split
        self.planted.append(Planted("writer in two splits", (audit.WRITER,), [pages[0][:-2]]))


def text(line: ElementTree.Element) -> str:
    return " ".join(e.get("CONTENT", "") for e in line.iter(f"{ALTO}String"))


def set_text(line: ElementTree.Element, content: str) -> None:
    first, *others = line.iter(f"{ALTO}String")
    first.set("CONTENT", content)
    for other in others:
        line.remove(other)


def polygon(line: ElementTree.Element) -> list[tuple[float, float]]:
    (shape,) = line.iter(f"{ALTO}Polygon")
    values = [float(value) for value in shape.get("POINTS", "").replace(",", " ").split()]
    return list(zip(values[::2], values[1::2], strict=True))


def set_polygon(line: ElementTree.Element, points: list[tuple[float, float]]) -> None:
    (shape,) = line.iter(f"{ALTO}Polygon")
    shape.set("POINTS", " ".join(f"{x:g} {y:g}" for x, y in points))
