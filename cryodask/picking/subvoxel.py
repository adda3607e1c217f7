"""Where between the voxels a peak lies."""

import numpy as np


def parabola_offset(before: np.ndarray, at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the offset of the vertex of the parabola through three equally spaced scores.

    δ = (s₋ - s₊)/(2(s₋ - 2s₀ + s₊)), 0 where the middle is no maximum or a neighbour is not finite,
    clipped to ±0.5.

    Parameters
    ----------
    before, at, after
        (n,) scores one voxel below, at, and one voxel above the peak.

    Returns
    -------
    numpy.ndarray
        (n,) float64 offsets in voxels.
    """
    low, middle, high = (np.asarray(s, np.float64) for s in (before, at, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        curvature = low - 2 * middle + high
        offset = (low - high) / (2 * curvature)
    maximum = np.isfinite(offset) & (middle >= low) & (middle >= high) & (curvature < 0)
    return np.clip(np.where(maximum, offset, 0.0), -0.5, 0.5)
