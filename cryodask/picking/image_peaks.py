"""Peaks of a score map over an image: greedy, by falling score, each clear of those before."""

import math

import numpy as np

from cryodask.errors import InputError


def image_peaks(
    score: np.ndarray, cutoff: float, *, mask_radius: float = 5.0, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Choose the positions of highest score that keep their distance.

    All positions above the cutoff, by falling score, of equal scores the lowest row, then column, first; one
    is taken, those closer than the radius are dropped, and so on, as Leopard-EM does. The map itself is the
    list of cells, so the time is linear in the candidates.

    Parameters
    ----------
    score
        (y, x); NaN is never a peak.
    cutoff
        A peak's score is above it.
    mask_radius
        Pixels; a position exactly this far away is kept.
    allowed
        (y, x); peaks lie where it is true.

    Returns
    -------
    numpy.ndarray
        (k, 2) positions (y, x), int64, by falling score.

    Raises
    ------
    InputError
        A radius below 0.
    """
    if not mask_radius >= 0:
        raise InputError(f"--mask-radius {mask_radius:g}: expected at least 0 pixels")
    above = score > cutoff
    if allowed is not None:
        above &= allowed
    y, x = np.nonzero(above)
    order = np.lexsort((x, y, -score[y, x].astype(np.float64)))
    disc = _disc(mask_radius)
    reach = disc.shape[0] // 2
    free = np.zeros((score.shape[0] + 2 * reach, score.shape[1] + 2 * reach), bool)
    free[reach : reach + score.shape[0], reach : reach + score.shape[1]] = above
    found = []
    for row, column in zip(y[order].tolist(), x[order].tolist(), strict=True):
        if free[row + reach, column + reach]:
            found.append((row, column))
            free[row : row + 2 * reach + 1, column : column + 2 * reach + 1] &= ~disc
    return np.array(found, np.int64).reshape(-1, 2)


def _disc(radius: float) -> np.ndarray:
    """Return the offsets closer than a radius to the middle, which is always one of them."""
    reach = max(0, math.ceil(radius) - 1)
    steps = np.arange(-reach, reach + 1)
    inside = np.add.outer(steps**2, steps**2) < radius**2
    inside[reach, reach] = True
    return inside
