"""Where the coarse grid is searched: every voxel from which one to search is interpolated."""

from dataclasses import dataclass

import numpy as np

from cryodask.jobs.tomogram_matching.area import SearchArea
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.search.tiles import Tile


@dataclass(frozen=True)
class CoarseArea:
    """The voxels of the coarse grid from which those to search are interpolated.

    Parameters
    ----------
    area
        On the full grid.
    grid
        The coarse grid.
    """

    area: SearchArea
    grid: SearchGrid

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the coarse grid."""
        return self.grid.coarse_shape

    @property
    def is_everything(self) -> bool:
        """Whether every voxel is searched."""
        return self.area.is_everything

    def select(self, region: tuple[slice, ...]) -> np.ndarray:
        """Return which voxels of a region (z, y, x) of the coarse grid are searched."""
        seen = [self._seen_by(axis, part.start, part.stop) for axis, part in enumerate(region)]
        lows = [int(rows.min()) for rows in seen]
        full = tuple(slice(low, int(rows.max()) + 1) for low, rows in zip(lows, seen, strict=True))
        selected = self.area.select(full)
        for axis, (rows, low) in enumerate(zip(seen, lows, strict=True)):
            parts = (np.take(selected, column - low, axis=axis) for column in rows.T)
            selected = np.logical_or.reduce(list(parts))
        return selected

    def has(self, tile: Tile) -> bool:
        """Whether a tile of the coarse grid has a voxel to search."""
        return bool(self.select(tile.slices).any())

    def _seen_by(self, axis: int, start: int, stop: int) -> np.ndarray:
        """Return the full voxels (coarse voxel, some) less than a coarse voxel away, one at least."""
        size, factor = self.area.shape[axis], float(self.grid.factor)
        at = np.arange(start, stop)
        reach = int(1 / factor) + 1
        near = np.floor(at / factor + 0.5).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        apart = np.abs(near * factor - at[:, None])
        near = np.where(apart < 1 - 1e-9, near, near[:, reach : reach + 1])
        return near % size if self.grid.wraps else np.clip(near, 0, size - 1)
