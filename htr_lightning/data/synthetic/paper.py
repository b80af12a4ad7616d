"""Render handwriting as a scan, with paper texture, ink variation and ruled lines."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def with_neighbors(mask: UInt8[ndarray, "H W"], baseline: float, rng: np.random.Generator) -> UInt8[ndarray, "H W"]:
    """Add descenders of a line above, ascenders of a line below, or both, as a crop of a real page may show them.

    They are copied from the line itself and shifted horizontally.

    Args:
        mask: ink coverage of each pixel, from 0 to 255.
        baseline: baseline row.
        rng: random generator.
    """
    height, width = mask.shape
    result = mask.copy()
    which = int(rng.integers(1, 4))
    foot = round(baseline + height * rng.uniform(0.06, 0.2))
    head = round(baseline - height * rng.uniform(0.35, 0.55))
    if which & 1 and 0 < foot < height:
        descenders = np.roll(mask[foot:], int(rng.integers(width)), 1)
        np.maximum(result[: len(descenders)], descenders, out=result[: len(descenders)])
    if which & 2 and 0 < head < height:
        ascenders = np.roll(mask[:head], int(rng.integers(width)), 1)[: round(height * rng.uniform(0.1, 0.3))]
        np.maximum(result[height - len(ascenders) :], ascenders, out=result[height - len(ascenders) :])
    return result


def write_on_paper(
    mask: UInt8[ndarray, "H W"], baseline: float, pencil: bool, rng: np.random.Generator
) -> UInt8[ndarray, "H W"]:
    """Render ink coverage as a scan with uneven ink and paper, and sometimes with a ruled line or blur.

    Args:
        mask: ink coverage of each pixel, from 0 to 255.
        baseline: baseline row.
        pencil: whether the ink is light and grainy, like pencil.
        rng: random generator.
    """
    height, width = mask.shape
    clean = rng.random() < 0.6  # imitates scanners that whiten the paper
    strength = rng.uniform(0.55, 0.85) if pencil else rng.uniform(0.7, 1.0)
    flow = np.interp(np.arange(width), np.linspace(0, width, 12), rng.normal(1, 0.08, 12)).astype(np.float32)
    grain = _tile(height, width, rng)
    grain *= np.float32(rng.uniform(0.2, 0.5) if pencil else rng.uniform(0.03, 0.2))
    cover = mask * (np.float32(strength / 255) * flow)
    cover *= 1 - np.abs(grain)
    np.clip(cover, 0, 1, out=cover)
    paper = _paper(height, width, clean, rng)
    if rng.random() < 0.55:
        _rule(paper, baseline, rng)
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
    """Return a random window of fixed noise, because generating new noise would take longer than drawing the line."""
    noise = _noise()
    top = int(rng.integers(max(1, noise.shape[0] - height)))
    left = int(rng.integers(max(1, noise.shape[1] - width)))
    tile = noise[top : top + height, left : left + width]
    return tile.copy() if tile.shape == (height, width) else cv2.resize(tile, (width, height))


def _paper(height: int, width: int, clean: bool, rng: np.random.Generator) -> Float[ndarray, "H W"]:
    base, light, rough = (rng.uniform(249, 262), 1, 1.0) if clean else (rng.uniform(190, 252), 4, rng.uniform(0.5, 5))
    shade = np.interp(np.arange(width), np.linspace(0, width, 4), rng.normal(base, light, 4)).astype(np.float32)
    paper = _tile(height, width, rng)
    paper *= np.float32(rough)
    paper += shade
    return paper


def _rule(paper: Float[ndarray, "H W"], baseline: float, rng: np.random.Generator) -> None:
    """Draw a ruled line, which may be broken or as dark as ink, near the baseline."""
    height, width = paper.shape
    row, darkness, tilt = baseline + rng.normal(0.02, 0.04) * height, rng.uniform(15, 150), rng.normal(0, 0.004) * width
    lines = np.zeros(paper.shape, dtype=np.uint8)
    thickness = 1 if rng.random() < 0.7 else 2
    points = np.round(np.array([(0, row - tilt), (width, row + tilt)]) * 16).astype(np.int32)
    cv2.polylines(lines, [points], False, round(darkness), thickness, cv2.LINE_AA, 4)
    if rng.random() < 0.3:
        lines[:, np.repeat(rng.random(width // 6 + 1) < 0.3, 6)[:width]] //= 4
    paper -= lines
