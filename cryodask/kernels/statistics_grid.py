"""How coarse a grid the local statistics of a mask may be made on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.fft

from cryodask.arrays.module import to_numpy

StatisticsGridChoice = Literal["auto", "exact", "coarse"]

FRACTIONS = (0.5, 0.75)
LARGEST_ERROR = 1e-4
DIRECTIONS = 2000


@dataclass(frozen=True)
class StatisticsGrid:
    """A grid for A and B: its fraction of the tile's Nyquist and the predicted rms relative score error."""

    fraction: float
    predicted_error: float


def predicted_error(mask: Any, fraction: float) -> float:
    """Predict the rms relative error of a score whose A and B lack frequencies beyond a fraction of Nyquist.

    For white noise, the worst case, A errs by the mask's lost part h with variance 2Σh², and N·A - B² is N²,
    so the score errs by √(Σh²/2)/N. Σh² is the mean over all rotations of the mask.

    Parameters
    ----------
    mask
        (n, n, n), (z, y, x), unrotated.
    fraction
        Of Nyquist, 0..1.
    """
    if fraction >= 1.0:
        return 0.0
    host = np.asarray(to_numpy(mask), dtype=np.float64)
    length = 2 * host.shape[0]
    power = np.abs(scipy.fft.fftn(host, (length,) * 3)) ** 2
    k = np.fft.fftfreq(length)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    lost = np.sum(power * _share_outside_cube(radius / (0.5 * fraction))) / length**3
    return float(np.sqrt(lost / 2.0) / host.sum())


def _share_outside_cube(radius: np.ndarray) -> np.ndarray:
    """Return the share of a sphere's surface outside the cube of half edge 1, by radius."""
    cosine = 1.0 - 2.0 * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    azimuth = np.arange(DIRECTIONS) * np.pi * (3.0 - np.sqrt(5.0))
    sine = np.sqrt(1.0 - cosine**2)
    points = np.stack([cosine, sine * np.cos(azimuth), sine * np.sin(azimuth)])
    reach = np.sort(1.0 / np.abs(points).max(axis=0))
    return np.searchsorted(reach, radius, side="right") / DIRECTIONS


def choose_statistics_grid(mask: Any, choice: StatisticsGridChoice) -> StatisticsGrid:
    """Choose the grid of the local statistics.

    Parameters
    ----------
    mask
        (n, n, n), (z, y, x), unrotated.
    choice
        ``exact``: the full grid. ``coarse``: half of it. ``auto``: the coarsest of 1/2 and 3/4 whose
        predicted error is at most 1e-4, else the full grid.
    """
    if choice == "coarse":
        return StatisticsGrid(FRACTIONS[0], predicted_error(mask, FRACTIONS[0]))
    if choice == "auto":
        for fraction in FRACTIONS:
            error = predicted_error(mask, fraction)
            if error <= LARGEST_ERROR:
                return StatisticsGrid(fraction, error)
    return StatisticsGrid(1.0, 0.0)
