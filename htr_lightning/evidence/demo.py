"""Data and runs with which the notebooks work if the user names none: nothing is downloaded but MNIST."""

import csv
import os
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.page import write_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.written import About
from htr_lightning.data.reader.mnist import Mnist
from htr_lightning.errors import InputError
from htr_lightning.evidence.notebook import command

MARGIN, LEADING = 60, 14  # around the lines of a drawn page and between them, in pixels


def digits(folder: Path | None = None) -> list[str]:
    """Return the overrides of a first run: on MNIST if it is there or can be downloaded, and otherwise on drawn digits.

    Args:
        folder: folder with the files of MNIST; None for `$HTR_DATA/mnist`, or a download to the cache.
    """
    import pooch

    own = folder or (Path(os.environ["HTR_DATA"], "mnist").resolve() if "HTR_DATA" in os.environ else None)
    place = own or Path(pooch.os_cache("htr_lightning"), "mnist")
    try:
        for split in ("train", "test"):
            Mnist(place, split, download=own is None)
    except (InputError, OSError) as error:
        print(f"MNIST is not available ({error}): synthetic digits are used instead")
        return ["experiment=first_digits"]
    return ["model=mlp", "data=mnist", f"data.root='{place}'", "trainer.max_epochs=2", "trainer.max_time=1m",
            "trainer.val_check_interval=0.25", "trainer.check_val_every_n_epoch=1"]  # fmt: skip


def draw_two(path: Path) -> Path:
    """Draw the digit 2 in blue ink on a badly lit sheet, as in a photo, and return the path of the image."""
    light = np.linspace(150, 235, 160)[None, :, None] * np.ones((200, 1, 3))
    sheet = light.astype(np.uint8)
    strokes = np.array([[45, 62], [60, 40], [90, 36], [108, 58], [100, 90], [70, 125], [42, 158], [122, 155]])
    cv2.polylines(sheet, [strokes], False, (120, 60, 40), 9, cv2.LINE_AA)
    cv2.imwrite(str(path), sheet)
    return path


def sweep(folder: Path, *overrides: str) -> Path:
    """Run a sweep of tiny runs on drawn digits, and return its folder.

    Args:
        folder: folder of the sweep.
        overrides: what varies, such as "seed=0,1".
    """
    small = ["data.reader.lines={train: 400, val: 100, test: 300}", "data.workers=0", "trainer.max_epochs=4",
             "data.reader.writers={train: 40, val: 10, test: 20}", "trainer.val_check_interval=1.0"]  # fmt: skip
    command("train", "-m", "experiment=first_digits", *small, *overrides, f"hydra.sweep.dir={folder}")
    return folder


def draw_pages(folder: Path, data: LineDataModule, lines: int = 8) -> Path:
    """Write PAGE pages with drawn lines, some of one writer to a page, and their splits, and return the folder.

    Args:
        folder: folder to create.
        data: drawn lines; see `data=synthetic`.
        lines: number of lines per page.
    """
    folder.mkdir(parents=True)
    rows = [["page", "split"]]
    for split in ("train", "val", "test"):
        reader = data.lines(split).reader
        by_writer: dict[str, list[int]] = {}
        for position, group in enumerate(reader.groups):
            by_writer.setdefault(group, []).append(position)
        for number, positions in enumerate(by_writer.values()):
            for part, start in enumerate(range(0, len(positions), lines)):
                name = f"{split}_{number}_{part}"
                samples = [reader[position] for position in islice(positions, start, start + lines)]
                _write_page(folder, name, [(one.image, one.text) for one in samples])
                rows.append([name, split])
    with open(folder / "splits.tsv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    return folder


def _write_page(folder: Path, name: str, lines: list[tuple[np.ndarray, str]]) -> None:
    width = max(image.shape[1] for image, _ in lines) + 2 * MARGIN
    height = sum(image.shape[0] + LEADING for image, _ in lines) + 2 * MARGIN
    paper = int(np.median(lines[0][0]))
    sheet = np.full((height, width), paper, np.uint8)
    found, top = [], MARGIN
    for number, (image, text) in enumerate(lines):
        bottom, right = top + image.shape[0], MARGIN + image.shape[1]
        shift = paper - int(np.median(image))  # all lines on the same paper
        sheet[top:bottom, MARGIN:right] = (image.astype(np.int16) + shift).clip(0, 255)
        outline = [(float(x), float(y)) for x, y in
                   ((MARGIN, top), (right, top), (right, bottom), (MARGIN, bottom))]  # fmt: skip
        baseline = [(float(MARGIN), bottom - 0.3 * image.shape[0]), (float(right), bottom - 0.3 * image.shape[0])]
        found.append(Line(f"line_{number}", text, outline, baseline, "region_1"))
        top = bottom + LEADING
    cv2.imwrite(str(folder / f"{name}.png"), sheet)
    page = Page(folder / f"{name}.xml", f"{name}.png", width, height, found)
    page.path.write_bytes(write_page.new_page(page, About()))
