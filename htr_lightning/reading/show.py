"""Draw the lines found on a page."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.page.crop import open_page
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line
from htr_lightning.errors import InputError
from htr_lightning.output import replacing
from htr_lightning.reading.transcribe import TranscribedLine

SIDE = 1600  # longer side of the picture in pixels
OUTLINE, BASELINE, NUMBER = (0, 114, 178), (213, 94, 0), (170, 80, 140)  # as in `picture`


def draw_lines(image: UInt8[ndarray, "H W"], lines: Sequence[Line]) -> UInt8[ndarray, "h w 3"]:
    """Return a picture of a page in RGB with the outlines and baselines of its lines, numbered in reading order."""
    scale = min(1.0, SIDE / max(image.shape))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)

    def scaled(points: object) -> ndarray:
        return np.round(np.array(points) * scale).astype(np.int32)

    filled = picture.copy()
    drawn = [line for line in lines if line.polygon]
    for line in drawn:
        cv2.fillPoly(filled, [scaled(line.polygon)], OUTLINE)
    picture = cv2.addWeighted(picture, 0.8, filled, 0.2, 0)
    for number, line in enumerate(drawn, start=1):
        cv2.polylines(picture, [scaled(line.polygon)], True, OUTLINE, 1, cv2.LINE_AA)
        if line.baseline:
            cv2.polylines(picture, [scaled(line.baseline)], False, BASELINE, 2, cv2.LINE_AA)
        x, y = scaled((line.baseline or line.polygon)[0]).tolist()
        cv2.putText(picture, str(number), (max(0, x - 24), y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, NUMBER, 2, cv2.LINE_AA)
    return picture


def picture_paths(names: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the paths of the pictures of files in a folder.

    Raises:
        InputError: if two files have the same name.
    """
    paths: dict[Path, Path] = {}
    given: dict[Path, Path] = {}
    for name in names:
        path = folder / f"{name.stem}-lines.jpg"
        if given.setdefault(path, name) != name:
            raise InputError(f"{path}: {given[path]} and {name} have the same picture; transcribe them separately")
        paths[name] = path
    return paths


def show(lines: Sequence[TranscribedLine], path: Path) -> bool:
    """Write a picture of a page with its lines as JPEG, and return whether there is one.

    Images of one line, pages without lines and pages that cannot be read have none.

    Raises:
        InputError: if the file cannot be written.
    """
    source = lines[0].source
    drawn = [one.line for one in lines if one.line is not None]
    if not drawn or isinstance(source.image, str) or all(one.error for one in lines):
        return False
    image = open_page(lines[0].page or read_page(source.path), source.image)
    picture = cv2.cvtColor(draw_lines(image, drawn), cv2.COLOR_RGB2BGR)
    with replacing(path, "--show") as beside:
        beside.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    return True
