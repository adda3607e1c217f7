"""Greedy choice of peaks that keep their distance."""

import numpy as np
from scipy.spatial import cKDTree


def greedy_peaks(positions: np.ndarray, scores: np.ndarray, distance: float) -> np.ndarray:
    """Accept points by falling score, each farther than `distance` from every accepted one.

    Parameters
    ----------
    positions
        (n, 3) points in (z, y, x).
    scores
        (n,) ranks; of equal scores the lowest (z, y, x) comes first.
    distance
        In the unit of `positions`, >= 0; a point exactly this far away is rejected.

    Returns
    -------
    numpy.ndarray
        (k,) indices of the accepted points, by falling score.
    """
    if len(positions) == 0:
        return np.empty(0, np.int64)
    z, y, x = np.asarray(positions).T
    order = np.lexsort((x, y, z, -np.asarray(scores, np.float64)))
    tree = cKDTree(positions)
    free = np.ones(len(positions), bool)
    accepted = []
    for index in order:
        if free[index]:
            accepted.append(index)
            free[tree.query_ball_point(positions[index], distance)] = False
    return np.array(accepted, np.int64)
