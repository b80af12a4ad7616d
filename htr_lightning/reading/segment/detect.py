"""Find the writing on a page: where the middle zones of its lines are.

With `htr-lightning[pages]`, the detector of PaddleOCR (PP-OCRv6, Apache-2.0) in the package rapidocr, which finds lines
of any script, hand and direction (DB: Liao et al., 2020, "Real-time scene text detection with differentiable
binarization", arXiv:1911.08947). Without it, rows of ink.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from htr_lightning.data.writing import find_strokes, letter_height
from htr_lightning.export.session import Graph, open_graph

NO_DETECTOR = "lines of pages without XML are found by rows of ink; install htr-lightning[pages] for a better detector"
MODELS = "models/*_det_*.onnx"  # in the package rapidocr
ALONG, ACROSS, AROUND = 4.0, 0.6, 3.0  # sides of windows in which ink is averaged, in heights of letters


@cache
def detector() -> Path | None:
    """Return the path of the detector, or None if it is not installed."""
    spec = find_spec("rapidocr")  # not imported, since only its model is needed
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders for path in sorted(Path(folder).glob(MODELS))), None)


@cache
def _graph(path: Path) -> Graph:
    return open_graph(path.read_bytes())


def find_writing(image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "H W"]:
    """Return the probability that a pixel belongs to the middle zone of a line.

    Args:
        image: dark ink on light paper; sides are multiples of 32.
    """
    path = detector()
    if path is None:
        return rows_of_ink(image)
    graph = _graph(path)
    pixels = np.repeat((image.astype(np.float32) / 127.5 - 1)[None, None], 3, axis=1)  # grey in each colour
    found: Float32[ndarray, "H W"] = graph.run({graph.inputs[0]: pixels})[0][0, 0]
    return found


def rows_of_ink(image: UInt8[ndarray, "H W"]) -> Float32[ndarray, "H W"]:
    """Return where there is more ink than above and below, which shows lines that are nearly horizontal and apart."""
    strokes = find_strokes(image)
    height = letter_height(strokes)
    if not height:
        return np.zeros(image.shape, np.float32)
    ink = strokes.astype(np.float32)
    row = cv2.blur(ink, (_odd(ALONG * height), _odd(ACROSS * height)))
    around = cv2.blur(row, (1, _odd(AROUND * height)))
    return np.where(row > 0.02, row / np.maximum(row + around, 1e-6) * 1.2 - 0.2, 0).astype(np.float32)


def _odd(size: float) -> int:
    return int(size) | 1
