"""Exact scores at a few positions: sums of a block under box weights, without Fourier transforms.

What a search of all positions leaves to be scored again are small windows around peaks; there the direct sum
over the weights' support costs less than transforms, and one rotated template serves every window that asks
for it.
"""

from typing import Any

import numba
import numpy as np

from cryodask.kernels.simd import LANES, aligned_empty, fill, load, store
from cryodask.kernels.tile_state import LEAST_VARIANCE

TOGETHER = 4  # positions along x that share each load of the weights


class WindowBlock:
    """A block of data in which windows of positions are scored.

    Parameters
    ----------
    block
        (Bz, By, Bx) float32, (z, y, x); position i sums block[i + v] over the box voxels v.
    """

    def __init__(self, block: np.ndarray) -> None:
        self.shape = block.shape
        self._values = _padded(block)
        self._squares: np.ndarray | None = None

    def sums(self, weights: np.ndarray, starts: np.ndarray, extents: np.ndarray) -> np.ndarray:
        """Return Σ_v weights(v) block(i + v) at the positions of windows.

        Parameters
        ----------
        weights
            (n, n, n) float32.
        starts, extents
            (w, 3) first position and number of positions of each window, (z, y, x).

        Returns
        -------
        numpy.ndarray
            Flat float32, the windows one after the other, each in C order.
        """
        return self._sums(self._values, weights, starts, extents)

    def inverse_norm(
        self, mask: np.ndarray, count: float, starts: np.ndarray, extents: np.ndarray
    ) -> np.ndarray:
        """Return 1/√(N·A - B²) at the positions of windows, 0 where it has no meaning; see `sums`.

        Parameters
        ----------
        mask
            (n, n, n) float32, rotated.
        count
            N, the sum of the mask.
        starts, extents
            See `sums`.
        """
        if self._squares is None:
            self._squares = self._values * self._values
        total = self._sums(self._values, mask, starts, extents).astype(np.float64)
        variance = count * self._sums(self._squares, mask, starts, extents).astype(np.float64) - total**2
        inside = variance > LEAST_VARIANCE * count * count
        return np.where(inside, 1.0 / np.sqrt(np.where(inside, variance, 1.0)), 0.0).astype(np.float32)

    def _sums(
        self, values: np.ndarray, weights: np.ndarray, starts: np.ndarray, extents: np.ndarray
    ) -> np.ndarray:
        lengths = np.prod(extents, axis=1)
        out = np.empty(int(lengths.sum()), np.float32)
        begins = np.cumsum(lengths) - lengths
        rows, lines = _support(weights)
        _window_sums(values, self.shape[1], self.shape[2], rows, lines, starts, extents, begins, out)
        return out


def _padded(block: np.ndarray) -> np.ndarray:
    """Return a block as a flat array that vectors may be read beyond the end of."""
    out = aligned_empty((block.size + LANES,))
    out[: block.size] = block.reshape(-1)
    out[block.size :] = 0.0
    return out


def _support(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pieces of 16 along x that are not all 0: (z, y, x) of each, and the values."""
    n = weights.shape[0]
    wide = np.zeros((n, n, -(-n // LANES) * LANES), np.float32)
    wide[:, :, :n] = weights
    pieces = wide.reshape(n, n, -1, LANES)
    z, y, piece = np.nonzero(pieces.any(axis=3))
    return np.stack([z, y, piece * LANES], axis=1), np.ascontiguousarray(pieces[z, y, piece]).reshape(-1)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _window_sums(
    values: np.ndarray,
    height: int,
    width: int,
    rows: np.ndarray,
    lines: np.ndarray,
    starts: np.ndarray,
    extents: np.ndarray,
    begins: np.ndarray,
    out: np.ndarray,
) -> None:
    lanes = np.zeros(TOGETHER * LANES, np.float32)
    shifts = np.empty(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        shifts[i] = (rows[i, 0] * height + rows[i, 1]) * width + rows[i, 2]
    for w in range(starts.shape[0]):
        nx = extents[w, 2]
        for z in range(extents[w, 0]):
            for y in range(extents[w, 1]):
                base = ((starts[w, 0] + z) * height + starts[w, 1] + y) * width + starts[w, 2]
                at = begins[w] + (z * extents[w, 1] + y) * nx
                x = 0
                while x < nx:
                    if nx < TOGETHER:
                        _one(values, base + x, shifts, lines, lanes)
                        out[at + x] = _total(lanes, 0)
                        x += 1
                    else:
                        # the last group overlaps the one before rather than leave positions over
                        first = min(x, nx - TOGETHER)
                        _four(values, base + first, shifts, lines, lanes)
                        for k in range(TOGETHER):
                            out[at + first + k] = _total(lanes, k * LANES)
                        x = first + TOGETHER


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _four(values: np.ndarray, base: int, shifts: np.ndarray, lines: np.ndarray, lanes: np.ndarray) -> None:
    a = fill(np.float32(0.0))
    b, c, d = a, a, a
    for i in range(shifts.shape[0]):
        weight = load(lines, i * LANES)
        at = base + shifts[i]
        a = a + weight * load(values, at)
        b = b + weight * load(values, at + 1)
        c = c + weight * load(values, at + 2)
        d = d + weight * load(values, at + 3)
    store(lanes, 0, a)
    store(lanes, LANES, b)
    store(lanes, 2 * LANES, c)
    store(lanes, 3 * LANES, d)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _one(values: np.ndarray, base: int, shifts: np.ndarray, lines: np.ndarray, lanes: np.ndarray) -> None:
    a = fill(np.float32(0.0))
    for i in range(shifts.shape[0]):
        a = a + load(lines, i * LANES) * load(values, base + shifts[i])
    store(lanes, 0, a)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _total(lanes: np.ndarray, begin: int) -> Any:
    total = 0.0
    for k in range(LANES):
        total += lanes[begin + k]
    return np.float32(total)
