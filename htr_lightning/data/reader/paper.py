"""Paper, ink and rulings: what a line looks like once it is scanned."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def write_on_paper(
    mask: UInt8[ndarray, "H W"], baseline: float, pencil: bool, rng: np.random.Generator
) -> UInt8[ndarray, "H W"]:
    """Ink coverage as a scan: uneven ink on uneven paper, at times ruled, at times out of focus.

    Args:
        mask: share of every pixel that ink covers, in [0, 255].
        baseline: row on which the letters stand.
        pencil: grey and grainy rather than inked.
    """
    height, width = mask.shape
    strength = rng.uniform(0.45, 0.75) if pencil else rng.uniform(0.7, 1.0)
    flow = np.interp(np.arange(width), np.linspace(0, width, 12), rng.normal(1, 0.08, 12)).astype(np.float32)
    grain = _tile(height, width, rng) * np.float32(0.35 if pencil else 0.1)
    cover = (mask.astype(np.float32) * np.float32(strength / 255) * flow * (1 - np.abs(grain))).clip(0, 1)
    paper = _paper(height, width, rng)
    if rng.random() < 0.4:
        _rule(paper, baseline + rng.normal(1, 1.5), rng)
    image = paper + (np.float32(rng.uniform(10, 80)) - paper) * cover
    if (blur := rng.uniform(0, 0.9)) > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return image.clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _noise() -> Float[ndarray, "256 4096"]:
    rng = np.random.default_rng(0)
    fine = rng.standard_normal((256, 4096), dtype=np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal((256, 4096), dtype=np.float32), (0, 0), 2.0)
    return 0.6 * fine + 0.4 * coarse / coarse.std()


def _tile(height: int, width: int, rng: np.random.Generator) -> Float[ndarray, "H W"]:
    """A window of fixed noise of unit variance: fresh noise would take longer than the drawing."""
    noise = _noise()
    top = int(rng.integers(max(1, noise.shape[0] - height)))
    left = int(rng.integers(max(1, noise.shape[1] - width)))
    tile = noise[top : top + height, left : left + width]
    return tile if tile.shape == (height, width) else cv2.resize(tile, (width, height))


def _paper(height: int, width: int, rng: np.random.Generator) -> Float[ndarray, "H W"]:
    base = rng.uniform(190, 252)
    light = np.interp(np.arange(width), np.linspace(0, width, 4), rng.normal(0, 4, 4)).astype(np.float32)
    return base + light + _tile(height, width, rng) * np.float32(rng.uniform(0.5, 5))


def _rule(paper: Float[ndarray, "H W"], baseline: float, rng: np.random.Generator) -> None:
    darkness, thickness, tilt = rng.uniform(15, 90), int(rng.integers(1, 3)), rng.normal(0, 0.004) * paper.shape[1]
    lines = np.zeros(paper.shape, dtype=np.uint8)
    start = (0, round(baseline - tilt))
    cv2.line(lines, start, (paper.shape[1], round(baseline + tilt)), 255, thickness, cv2.LINE_AA)
    paper -= lines.astype(np.float32) * np.float32(darkness / 255)
