"""Chains of beads that fill a body without overlapping: what a folded chain looks like at 10 angstrom."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

_PROPOSALS = 48
_MAX_STUCK = 400


def self_avoiding_walk(
    inside: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    count: int,
    *,
    step: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Grow a chain of beads in a body; where its end is walled in, it goes on from an earlier bead.

    Parameters
    ----------
    inside : callable, (N, 3) -> (N,) bool
        Says which points belong to the body.
    start : (3,), angstrom
    count : int
        Beads wanted; fewer come back where the body is full.
    step : float, angstrom
        Distance of neighbours in the chain; no two beads are nearer than 0.95 of it.
    rng : Generator

    Returns
    -------
    (N, 3) float64, N <= count
    """
    beads = np.empty((count, 3))
    beads[0] = start
    n, end, stuck = 1, beads[0], 0
    while n < count and stuck < _MAX_STUCK:
        directions = rng.standard_normal((_PROPOSALS, 3))
        proposals = end + step * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        gaps = cdist(proposals, beads[:n]).min(axis=1)
        free = np.flatnonzero(inside(proposals) & (gaps >= 0.95 * step))
        if free.size:
            end = beads[n] = proposals[free[0]]
            n, stuck = n + 1, 0
        else:
            end, stuck = beads[rng.integers(n)], stuck + 1
    return beads[:n]


def ellipsoid(points: np.ndarray, centre: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """Say which of (N, 3) points lie in an ellipsoid of the given centre and half axes."""
    return np.sum(((points - np.array(centre)) / np.array(axes)) ** 2, axis=-1) <= 1


Ends = tuple[tuple[float, ...], tuple[float, ...]]


def capsule(points: np.ndarray, ends: Ends, radius: float) -> np.ndarray:
    """Say which of (N, 3) points lie within `radius` of the segment between two ends."""
    first, last = (np.array(end) for end in ends)
    along = np.clip((points - first) @ (last - first) / np.sum((last - first) ** 2), 0, 1)
    return np.linalg.norm(points - first - along[..., None] * (last - first), axis=-1) <= radius
