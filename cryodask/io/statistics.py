"""Statistics of a volume gathered block by block."""

import numpy as np

from cryodask.io.header import Slices


class RunningStatistics:
    """Minimum, maximum, mean and standard deviation of the finite values seen so far, in double precision.

    Blocks are merged with the pairwise formula of Chan, Golub and LeVeque (1979), which does not cancel.
    """

    def __init__(self) -> None:
        self.minimum, self.maximum = np.inf, -np.inf
        self.mean = 0.0
        self.count = self.non_finite = 0
        self.first_non_finite: tuple[int, int, int] | None = None
        self._squares = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return float(np.sqrt(self._squares / self.count)) if self.count else 0.0

    def update(self, block: np.ndarray, slices: Slices | None = None) -> None:
        """Add a block (z, y, x); `slices` places it, so that the first non-finite voxel can be named."""
        # Plane by plane: double-precision copies of a whole block would be the largest arrays here.
        for index, plane in enumerate(block):
            finite = np.isfinite(plane) if plane.dtype.kind == "f" else None
            if finite is not None and not finite.all():
                self._note_non_finite(~finite, slices, index)
                plane = plane[finite]
            if plane.size:
                self._merge(plane)

    def _note_non_finite(self, bad: np.ndarray, slices: Slices | None, index: int) -> None:
        self.non_finite += int(bad.sum())
        if slices is not None:
            y, x = np.argwhere(bad)[0].tolist()
            place = (slices[0].start + index, slices[1].start + y, slices[2].start + x)
            self.first_non_finite = min(self.first_non_finite or place, place)

    def _merge(self, block: np.ndarray) -> None:
        self.minimum = min(self.minimum, float(block.min()))
        self.maximum = max(self.maximum, float(block.max()))
        mean = float(block.mean(dtype=np.float64))
        squares = float(block.var(dtype=np.float64)) * block.size
        total = self.count + block.size
        shift = mean - self.mean
        self._squares += squares + shift**2 * self.count * block.size / total
        self.mean += shift * block.size / total
        self.count = total
