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
        finite = np.isfinite(block) if block.dtype.kind == "f" else None
        if finite is not None and not finite.all():
            self._note_non_finite(~finite, slices)
            block = block[finite]
        if block.size:
            self._merge(block)

    def _note_non_finite(self, bad: np.ndarray, slices: Slices | None) -> None:
        self.non_finite += int(bad.sum())
        if slices is not None:
            z, y, x = (int(i) + s.start for i, s in zip(np.argwhere(bad)[0], slices, strict=True))
            self.first_non_finite = min(self.first_non_finite or (z, y, x), (z, y, x))

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
