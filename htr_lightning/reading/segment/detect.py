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

from htr_lightning.data.writing import find_strokes
from htr_lightning.export.session import Graph, open_graph

NO_DETECTOR = "lines of pages without XML are found by rows of ink; install htr-lightning[pages] for a better detector"
MODELS = "models/*_det_*.onnx"  # in the package rapidocr
ALONG, ACROSS = 0.7, 0.09  # deviations of the window in which ink is averaged, in line distances
STEEP, FAINT = 2.0, 0.02  # ink relative to that around it, and ink that is as good as none
STRIPS = 12  # of a page
MIN_DISTANCE = 8  # of lines in pixels


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
    strokes = find_strokes(image).astype(np.float32)
    distance = _line_distance(strokes)
    row = cv2.GaussianBlur(strokes, (0, 0), sigmaX=ALONG * distance, sigmaY=ACROSS * distance)
    around = cv2.blur(row, (1, round(distance) | 1))
    found: Float32[ndarray, "H W"] = np.clip(STEEP * (row - around) / (around + FAINT), 0, 1).astype(np.float32)
    return found


def _line_distance(strokes: Float32[ndarray, "H W"]) -> float:
    """Return the distance of lines in pixels: the period of the ink in vertical strips, in which lines are level."""
    rows = len(strokes)
    profiles = cv2.resize(strokes, (STRIPS, rows), interpolation=cv2.INTER_AREA)
    profiles = cv2.subtract(profiles, cv2.blur(profiles, (1, rows // 8 | 1)))
    power = (np.abs(np.fft.rfft(profiles, 2 * rows, axis=0)) ** 2).sum(1)
    similarity = np.fft.irfft(power)[: rows // 4]
    falls = np.flatnonzero(np.diff(similarity) > 0)
    start = int(falls[0]) if len(falls) else 0  # the first minimum
    return float(max(MIN_DISTANCE, start + int(np.argmax(similarity[start:]))))
