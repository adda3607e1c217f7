"""The best score of some orientations in few windows of an image, over all defoci and pixel sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module, to_numpy
from cryodask.kernels.slices import extract_slices
from cryodask.kernels.window_correlation import ROWS, window_scores, window_set

# Bytes of the columns that windows and filters are joined to; what is more is scored in turn.
COLUMN_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class WindowSearch:
    """Windows of one image, and what projections are made of.

    Parameters
    ----------
    windows
        (S, n, n) float32, pieces of the filtered image.
    spectrum
        (m, m, m//2 + 1) complex64 from `template_spectrum`.
    filters
        (n_p, n_d, n, n//2 + 1).
    limit
        Longest frequency that any filter leaves, cycles per pixel.
    """

    windows: Any
    spectrum: Any
    filters: Any
    limit: float = 1.0

    def best(self, axes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest score of each orientation in each window, and the filter that gave it.

        Parameters
        ----------
        axes
            For each of n_p pixel sizes (N, 3, 2) from `slice_axes`.

        Returns
        -------
        scores, filters
            (N, S) float32, and (N, S) int64: pixel size · n_d + defocus, the lowest of equal scores.
        """
        xp = array_module(self.spectrum)
        count, n_d, n = len(axes[0]), self.filters.shape[1], self.filters.shape[-2]
        value = np.full((count, len(self.windows)), -np.inf, np.float32)
        number = np.zeros(value.shape, np.int64)
        for size, own in enumerate(axes):
            for defoci in self._pieces():
                prepared = window_set(self.windows, xp.asarray(self.filters[size, defoci]))
                for start in range(0, count, ROWS):
                    rows = slice(start, min(start + ROWS, count))
                    slices = extract_slices(self.spectrum, own[rows], n, limit=self.limit)
                    scores = to_numpy(window_scores(slices, prepared))
                    first = scores.argmax(axis=0)
                    largest = np.take_along_axis(scores, first[None], axis=0)[0]
                    better = largest > value[rows]
                    value[rows] = np.where(better, largest, value[rows])
                    number[rows] = np.where(better, size * n_d + defoci.start + first, number[rows])
        return value, number

    def _pieces(self) -> Iterator[slice]:
        n, count = self.filters.shape[-2], len(self.windows)
        most = max(1, COLUMN_BYTES // (8 * n * (n // 2 + 1) * (count + 1)))
        for start in range(0, self.filters.shape[1], most):
            yield slice(start, min(start + most, self.filters.shape[1]))
