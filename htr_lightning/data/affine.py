"""Affine maps of points in images, as matrices that multiply (x, y, 1)."""

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

Affine = Float64[ndarray, "3 3"]


def scaling(across: float | int, down: float | int) -> Affine:
    """Return the map that multiplies x and y."""
    return np.diag((across, down, 1.0))


def shift(right: float | int, down: float | int) -> Affine:
    """Return the map that adds to x and y."""
    return np.array([[1.0, 0.0, right], [0.0, 1.0, down], [0.0, 0.0, 1.0]])


def moved(points: Float[ndarray, "*N 2"], by: Affine) -> Float64[ndarray, "*N 2"]:
    """Return points after a map."""
    found: Float64[ndarray, "*N 2"] = points @ by[:2, :2].T + by[:2, 2]
    return found
