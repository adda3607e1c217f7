"""The maps of a coarse search as a tile of the full grid sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import maximum_filter

from cryodask.jobs.tomogram_matching.constants import stretches
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.jobs.tomogram_matching.windows import Requests
from cryodask.search.aggregates import NO_ID
from cryodask.search.tiles import Tile

Box = tuple[slice, slice, slice]
NEIGHBOURS = 1  # coarse voxels around a maximum whose rows it takes


@dataclass(frozen=True)
class Peaks:
    """Coarse maxima near a tile.

    Parameters
    ----------
    places
        (peak, 3) coarse voxels, (z, y, x), from the first that was read.
    starts, stops
        (peak, 3) the positions to score, from the tile's start.
    """

    places: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @property
    def windows(self) -> list[Box]:
        """The positions to score, as slices of the tile."""
        return [
            (slice(z, zz), slice(y, yy), slice(x, xx))
            for (z, y, x), (zz, yy, xx) in zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        ]


class CoarseMaps:
    """Reads the maps of a finished coarse search around one tile.

    Parameters
    ----------
    grid
        The coarse grid.
    path
        The store with the maps, over (template, z, y, x) or (template, copy, z, y, x).
    tile
        Positions on the full grid.
    thresholds
        Of each template: the score above which a maximum is a peak.
    decoy
        Number of the decoy among the templates beside each, whose maxima are peaks too; None for none.
    reach
        Voxels of the full grid around a peak that are scored; default: those of the grid.
    """

    def __init__(
        self,
        grid: SearchGrid,
        path: str,
        tile: Tile,
        thresholds: Sequence[float],
        decoy: int | None = None,
        reach: float | None = None,
    ) -> None:
        self.grid, self.tile, self.thresholds, self.decoy = grid, tile, thresholds, decoy
        self.reach = grid.reach if reach is None else reach
        self.group = zarr.open_group(path, mode="r")
        more = grid.reach_coarse + NEIGHBOURS + 1
        around = [grid.around(a, b, more) for a, b in zip(tile.start, tile.stop, strict=True)]
        self.first = np.array([first for first, _ in around])
        self.end = np.array([end for _, end in around])
        self._read: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
        self._peaks: Peaks | None = None

    def linear(self, name: str, *lead: int) -> np.ndarray:
        """Return a map on the tile, (z, y, x) float32, by linear interpolation."""
        values = self.around(name, *lead)
        for axis, (start, stop) in enumerate(zip(self.tile.start, self.tile.stop, strict=True)):
            at = np.arange(start, stop) * float(self.grid.factor)
            low = np.floor(at).astype(np.int64)
            weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            low = low - self.first[axis]
            below, above = np.take(values, low, axis=axis), np.take(values, low + 1, axis=axis)
            values = below + (above - below) * weight
        return np.ascontiguousarray(values)

    def nearest(self, name: str, *lead: int) -> np.ndarray:
        """Return a map on the tile, (z, y, x), of the nearest coarse voxels."""
        values = self.around(name, *lead)
        for axis, (start, stop) in enumerate(zip(self.tile.start, self.tile.stop, strict=True)):
            rows = np.floor(np.arange(start, stop) * float(self.grid.factor) + 0.5).astype(np.int64)
            values = np.take(values, rows - self.first[axis], axis=axis)
        return values

    def peaks(self) -> Peaks:
        """Return the maxima of templates and decoys above their thresholds whose windows touch the tile."""
        if self._peaks is None:
            self._peaks = self._find_peaks()
        return self._peaks

    def _find_peaks(self) -> Peaks:
        found = np.zeros(tuple(self.end - self.first), bool)
        for template, threshold in enumerate(self.thresholds):
            for copy in (-1,) if self.decoy is None else (-1, self.decoy):
                values, rows = self._scored(template, copy)
                is_peak = (values > threshold) & (rows != NO_ID)
                if is_peak.any():
                    found |= is_peak & (values == maximum_filter(values, size=3, mode="nearest"))
        places = np.argwhere(found)
        at = places + self.first
        factor, reach = float(self.grid.factor), self.reach
        starts = np.ceil(at / factor - reach - 1e-9).astype(np.int64) - self.tile.start
        stops = np.floor(at / factor + reach + 1e-9).astype(np.int64) + 1 - self.tile.start
        starts, stops = np.maximum(starts, 0), np.minimum(stops, self.tile.shape)
        near = (stops > starts).all(axis=1)
        if not self.grid.wraps:  # what lies beyond the edges is a copy of them
            near &= ((at >= 0) & (at < self.grid.coarse_shape)).all(axis=1)
        return Peaks(places[near], starts[near], stops[near])

    def requests(self, template: int, copy: int = -1) -> Requests:
        """Return the rows found in the neighbourhood of each peak.

        Parameters
        ----------
        template
            Number of the template.
        copy
            Number of a template beside it, noise or mirrored; -1 for the template itself.
        """
        _, rows = self._scored(template, copy)
        peaks = self.peaks()
        near = _neighbourhoods(rows, peaks.places)
        windows = np.repeat(np.arange(len(near)), near.shape[1])
        pairs = np.unique(np.stack([near.ravel().astype(np.int64), windows]), axis=1)
        pairs = pairs[:, pairs[0] != int(NO_ID)]
        return Requests(pairs[0], pairs[1], peaks.starts, peaks.stops)

    def best_rows(self, peaks: Peaks, count: int, template: int, copy: int = -1) -> np.ndarray:
        """Return the rows of the best scores in the neighbourhood of each peak.

        Parameters
        ----------
        peaks
            Some of the peaks.
        count
            Most rows of each.
        template, copy
            As `requests` takes them.

        Returns
        -------
        numpy.ndarray
            (peak, count) different rows, the best first, -1 where there are fewer.
        """
        values, ids = self._scored(template, copy)
        rows = _neighbourhoods(ids, peaks.places).astype(np.int64)
        scores = _neighbourhoods(values, peaks.places)
        found = np.full((len(rows), count), -1, np.int64)
        for place, order in enumerate(np.lexsort((rows, -scores), axis=1)):
            different = dict.fromkeys(rows[place, order].tolist())
            different.pop(int(NO_ID), None)
            best = list(different)[:count]
            found[place, : len(best)] = best
        return found

    def _scored(self, template: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and rows around the tile, of a template (copy -1) or one beside it."""
        if copy < 0:
            return self.around("score_raw", template), self.around("orientation", template)
        return self.around("beside", template, copy), self.around("beside_row", template, copy)

    def around(self, name: str, *lead: int) -> np.ndarray:
        """Return a map around the tile; beyond its edges it wraps around or repeats the edge."""
        key = (name, lead)
        if key not in self._read:
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            self._read[key] = self._read_around(array, lead)
        return self._read[key]

    def _read_around(self, array: zarr.Array, lead: tuple[int, ...]) -> np.ndarray:
        read: Any = array
        sizes = read.shape[len(lead) :]
        if not self.grid.wraps:
            low, high = np.clip(self.first, 0, None), np.minimum(self.end, sizes)
            inner = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            pads = np.stack([low - self.first, self.end - high], axis=1)
            return np.pad(np.asarray(read[(*lead, *inner)]), pads, mode="edge")
        out = np.empty(tuple(self.end - self.first), array.dtype)
        z, y, x = (
            list(stretches(first, end - first, size, True))
            for first, end, size in zip(self.first.tolist(), self.end.tolist(), sizes, strict=True)
        )
        for z_to, z_from in z:
            for y_to, y_from in y:
                for x_to, x_from in x:
                    out[z_to, y_to, x_to] = read[(*lead, z_from, y_from, x_from)]
        return out


def _neighbourhoods(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the values (place, 27) in the 3x3x3 neighbourhoods of places (place, 3)."""
    reach = np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    z, y, x = (column[:, None] + reach for column in places.T)
    near = values[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
    return near.reshape(len(places), -1)
