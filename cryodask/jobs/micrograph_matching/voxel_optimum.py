"""Which particles count in the search for a template's voxel size, and where their scores are highest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_SNR = 8.0
SAME_SIZE = 1e-9  # angstrom


@dataclass(frozen=True)
class Optimum:
    """What the search found.

    Attributes
    ----------
    table
        pixel_size (angstrom), score (mean z), particles, stage; in the order they were tried.
    pixel_size, uncertainty
        Vertex of the parabola around the best value and its standard error, angstrom; NaN where the best is
        the end of its range.
    """

    table: pd.DataFrame
    pixel_size: float
    uncertainty: float


@dataclass(frozen=True)
class Choice:
    """Which particles count: those of z at least `min_snr`, or the `best_n`."""

    min_snr: float = MIN_SNR
    best_n: int | None = None

    def counted(self, z: np.ndarray) -> np.ndarray:
        """Return which of the particles count, (P,) bool; equal z go to the first rows, NaN never."""
        known = np.isfinite(z)
        if self.best_n is None:
            return known & (np.where(known, z, -np.inf) >= self.min_snr)
        first = np.argsort(np.where(known, -z, np.inf), kind="stable")[: self.best_n]
        return known & np.isin(np.arange(len(z)), first)


def optimum(scored: Sequence[tuple[float, str, np.ndarray]]) -> Optimum:
    """Return the optimum of scored voxel sizes.

    Parameters
    ----------
    scored
        Voxel size, stage, and z of the particles that count, of each that was tried.
    """
    sizes = np.array([size for size, _, _ in scored])
    z = np.stack([line for _, _, line in scored]).astype(np.float64)
    stages = [stage for _, stage, _ in scored]
    table = pd.DataFrame(
        {"pixel_size": sizes, "score": z.mean(axis=1), "particles": z.shape[1], "stage": stages}
    )
    return Optimum(table, *parabola_optimum(sizes, z, np.array(stages) == stages[0]))


def parabola_optimum(sizes: np.ndarray, z: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Return the voxel size of best mean score and its standard error, by a parabola around the best value.

    It is fitted to all scores between the values of the first list on either side: those of the second list
    alone lie so close that noise would bend it. The error is the larger of two. The z-score of a particle has
    unit noise, so that N particles of mean z leave 1/sqrt(N z |z''|). And their slopes z_i' at the optimum,
    which cancel in the sum, scatter: sqrt(N/(N-1) sum z_i'^2)/|sum z_i''| (Huber 1967), which also holds for
    particles that disagree by more than noise.

    Parameters
    ----------
    sizes
        (V,) angstrom.
    z
        (V, N) z-scores of the particles that count.
    first
        (V,) which sizes are of the first list.
    """
    score = z.mean(axis=1)
    centre = float(sizes[int(np.argmax(score))])
    below, above = sizes[first & (sizes < centre - SAME_SIZE)], sizes[first & (sizes > centre + SAME_SIZE)]
    if not (below.size and above.size):
        return centre, math.nan
    low, high = float(below.max()), float(above.min())
    near = (sizes >= low - SAME_SIZE) & (sizes <= high + SAME_SIZE)
    if len(np.unique(sizes[near])) < 3:
        return centre, math.nan
    curvature, slope = np.polyfit(sizes[near] - centre, z[near], 2)[:2]
    a, b, count = float(curvature.sum()), float(slope.sum()), z.shape[1]
    if not a < 0:
        return centre, math.nan
    vertex = min(max(centre - b / (2 * a), low), high)
    noise = 1.0 / math.sqrt(float(score.max()) * 2 * abs(a))
    slopes = slope + 2 * curvature * (vertex - centre)
    scatter = math.sqrt(float((slopes**2).sum()) * count / max(count - 1, 1)) / (2 * abs(a))
    return float(vertex), max(noise, scatter)
