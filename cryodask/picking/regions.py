"""A result read region by region, so that a large one never lies in memory as a whole."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import xarray as xr

REGION_EDGE = 256
NOT_SEARCHED = 4294967295

Region = tuple[slice, slice, slice]


def shape_of(dataset: xr.Dataset) -> tuple[int, int, int]:
    """Return the (z, y, x) shape of the maps of a result."""
    return dataset.sizes["z"], dataset.sizes["y"], dataset.sizes["x"]


def regions(dataset: xr.Dataset, edge: int = REGION_EDGE) -> Iterator[Region]:
    """Cut a result into boxes that follow its chunks.

    Parameters
    ----------
    dataset
        Result with dimensions z, y, x.
    edge
        Wanted edge of a box in voxels, reduced to a whole number of chunks.

    Yields
    ------
    region
        (z, y, x) slices; together they cover every voxel once, in C order.
    """
    # of one map: along other dimensions variables may be cut differently
    chunks = dataset["score"].chunksizes if "score" in dataset else {}
    axes = []
    for axis, size in zip("zyx", shape_of(dataset), strict=True):
        chunk = chunks[axis][0] if chunks.get(axis) else edge
        step = max(chunk, edge // chunk * chunk)
        axes.append([slice(start, min(start + step, size)) for start in range(0, size, step)])
    yield from product(*axes)


def grow(region: Region, halo: int, shape: tuple[int, int, int]) -> tuple[Region, Region]:
    """Widen a region by a halo that stays inside the map.

    Returns
    -------
    outer, inner
        The widened region in the map, and the place of the first region inside it.
    """
    outer, inner = [], []
    for part, size in zip(region, shape, strict=True):
        outer.append(slice(max(part.start - halo, 0), min(part.stop + halo, size)))
        inner.append(slice(part.start - outer[-1].start, part.stop - outer[-1].start))
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])


def read_here(values: xr.Variable | xr.DataArray) -> np.ndarray:
    """Return the values of a lazy map, read by this process.

    In a worker of a cluster the task would otherwise wait for tasks of its own.
    """
    return np.asarray(values.compute(scheduler="threads").values)


class Block:
    """One region of the maps of one template; each map is read once, when first asked for.

    Parameters
    ----------
    dataset
        Result dataset.
    template
        Index on the template axis, unused by maps without it.
    region
        (z, y, x) slices.
    """

    def __init__(self, dataset: xr.Dataset, template: int, region: Region) -> None:
        self._dataset, self._template, self._region = dataset, template, region
        self._read: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the (z, y, x) values of a map."""
        if name not in self._read:
            variable = self._dataset[name].variable
            if "template" in variable.dims:
                variable = variable.isel(template=self._template)
            place = dict(zip("zyx", self._region, strict=True))
            self._read[name] = read_here(variable.isel(place).transpose("z", "y", "x"))
        return self._read[name]

    @property
    def searched(self) -> np.ndarray:
        """Where an orientation was found."""
        return self["orientation"] != NOT_SEARCHED

    def scores(self, name: str) -> np.ndarray:
        """Return a score map with -inf where nothing was searched or the score is not finite."""
        return np.where(self.searched & np.isfinite(self[name]), self[name], np.float32(-np.inf))

    def finite_scores(self, name: str) -> np.ndarray:
        """Return the scores of the searched voxels as a flat float64 array."""
        scores = self.scores(name)
        return scores[np.isfinite(scores)].astype(np.float64)
