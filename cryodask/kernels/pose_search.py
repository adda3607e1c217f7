"""The best pose of one particle: rotations x defoci x pixel sizes x integer shifts, by its z-score.

The mean and standard deviation are those of the search at each position, so that a refined score stands on
the same scale as the one that found the particle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module, to_numpy
from cryodask.kernels.slices import extract_slices
from cryodask.kernels.window_correlation import ROWS, UNIT_ENERGY, Normalization, window_scores, window_set

NO_ID = 0xFFFFFFFF
# Bytes of the columns that windows and filters are joined to; what is more is scored in turn.
COLUMN_BYTES = 256 * 2**20
STEPS = 16  # to a pixel, when a position is found between pixels


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Where one particle is looked for.

    Parameters
    ----------
    image
        (y, x) float32, a piece of the filtered image.
    shifts
        (S, 2) int: first pixel (y, x) in `image` of each window, in the order that settles ties.
    mean, spread
        (S,) float32: mean of the search's scores at each window, and what their excess is divided by, > 0.
    """

    image: Any
    shifts: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class PoseHypotheses:
    """What is tried.

    Parameters
    ----------
    spectrum
        (m, m, m//2 + 1) complex64 from `kernels.slices.template_spectrum`.
    axes
        For each of n_p pixel sizes (N, 3, 2) from `kernels.slices.slice_axes`.
    filters
        (n_p, n_d, n, n//2 + 1): CTF times filters of the template.
    first, total
        Number of the first of the N rotations among all `total`: the id of a pose is
        (i_p n_d + i_d) total + i_o.
    """

    spectrum: Any
    axes: tuple[np.ndarray, ...]
    filters: Any
    first: int = 0
    total: int = 0


@dataclass(frozen=True)
class BestPose:
    """The largest z-score, its score, the id of the pose and the number of the shift; ties to the lowest."""

    z: float = -np.inf
    cc: float = np.nan
    pose: int = NO_ID
    shift: int = 0

    def beats(self, other: "BestPose") -> bool:
        """Say whether this is the better of the two."""
        if self.z != other.z:
            return self.z > other.z
        return (self.pose, self.shift) < (other.pose, other.shift)


def best_pose(
    around: Surroundings, tried: PoseHypotheses, normalization: Normalization = UNIT_ENERGY
) -> BestPose:
    """Return the best of all poses at all shifts.

    Parameters
    ----------
    around
        The image about the particle; no shift gives no pose.
    tried
        Rotations, defoci and pixel sizes.
    normalization
        Of the projections.
    """
    best = BestPose()
    for found in scored_blocks(around, tried, normalization):
        best = found[0] if found[0].beats(best) else best
    return best


def scored_blocks(
    around: Surroundings, tried: PoseHypotheses, normalization: Normalization
) -> Iterator[tuple[BestPose, int, np.ndarray]]:
    """Yield for each block of rotations its best pose, its first rotation, and all its scores (J, N, S)."""
    xp = array_module(tried.spectrum)
    n, n_d = tried.filters.shape[-2], tried.filters.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(to_numpy(around.image), (n, n))
    for p, axes in enumerate(tried.axes):
        for defoci, shifts in _pieces(n, n_d, len(around.shifts)):
            places = around.shifts[shifts]
            pieces = xp.asarray(windows[places[:, 0], places[:, 1]])
            prepared = window_set(pieces, xp.asarray(tried.filters[p, defoci]))
            for rows in _row_blocks(tried.first, tried.first + len(axes)):
                slices = extract_slices(
                    tried.spectrum, axes[rows.start - tried.first : rows.stop - tried.first], n
                )
                at = rows.start % ROWS
                scores = to_numpy(window_scores(slices, prepared, normalization, first_row=at))
                z = (scores - around.mean[shifts]) / around.spread[shifts]
                first = p * n_d + defoci.start, rows.start, shifts.start
                yield best_of(scores, z, first, tried.total), rows.start, scores


def best_of(scores: np.ndarray, z: np.ndarray, first: tuple[int, int, int], total: int) -> BestPose:
    """Return the best of a block.

    Parameters
    ----------
    scores, z
        (J, N, S): filters, rotations, shifts.
    first
        Numbers of the first filter, rotation and shift among all.
    total
        Number of all rotations.
    """
    j, o, s = (int(i) for i in np.unravel_index(int(np.argmax(z)), z.shape))
    pose = (first[0] + j) * total + first[1] + o
    return BestPose(float(z[j, o, s]), float(scores[j, o, s]), pose, first[2] + s)


def batch_highest(highest: np.ndarray, rotation: int, size: int) -> float:
    """Return what Leopard-EM 1.2 calls the score of a pose: the largest in the batch of its rotation.

    Parameters
    ----------
    highest
        (N,) the largest score of each rotation.
    rotation, size
        The rotation of the best pose, and the rotations of a batch.
    """
    begin = rotation // size * size
    return float(highest[begin : begin + size].max())


def _row_blocks(start: int, stop: int) -> Iterator[slice]:
    """Yield ranges that end at multiples of `ROWS`: the same rotations meet in a product, however split."""
    while start < stop:
        end = min(stop, (start // ROWS + 1) * ROWS)
        yield slice(start, end)
        start = end


def _pieces(n: int, filters: int, shifts: int) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of filters and shifts whose columns fit the memory set aside for them."""
    columns = max(2, COLUMN_BYTES // (8 * n * (n // 2 + 1)))
    many = min(filters, max(1, columns // 2))
    wide = max(1, columns // many - 1)
    for j in range(0, filters, many):
        for s in range(0, shifts, wide):
            yield slice(j, min(j + many, filters)), slice(s, min(s + wide, shifts))


def subpixel_peak(window: np.ndarray, projection: np.ndarray) -> tuple[float, float]:
    """Return how far from the middle of a window a projection fits best, (y, x) within 1 px.

    The correlation is evaluated at sixteenths of a pixel by two products with the spectrum, and a parabola is
    laid through the best three of each axis (Guizar-Sicairos, Thurman and Fienup 2008).

    Parameters
    ----------
    window
        (n + 2r, n + 2r), the filtered image about the particle, r >= 2.
    projection
        (n, n), unit energy.
    """
    size, n = window.shape[0], projection.shape[0]
    margin = (size - n) // 2
    padded = np.zeros(window.shape)
    padded[margin : margin + n, margin : margin + n] = projection
    cross = np.fft.fft2(window) * np.conj(np.fft.fft2(padded))
    steps = np.arange(-STEPS, STEPS + 1) / STEPS
    k = np.fft.fftfreq(size)
    turn = np.exp(2j * np.pi * np.outer(steps, k))
    fine = (turn @ cross @ turn.T).real
    y, x = np.unravel_index(int(np.argmax(fine)), fine.shape)
    return _vertex(fine[:, x], int(y), steps), _vertex(fine[y], int(x), steps)


def _vertex(line: np.ndarray, at: int, steps: np.ndarray) -> float:
    if not 0 < at < len(line) - 1:
        return float(steps[at])
    low, middle, high = line[at - 1 : at + 2]
    curvature = low - 2.0 * middle + high
    offset = 0.5 * (low - high) / curvature if curvature < 0 else 0.0
    return float(steps[at] + offset * (steps[1] - steps[0]))
