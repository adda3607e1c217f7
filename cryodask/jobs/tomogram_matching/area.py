"""Where a tomogram is searched: its mask and the region of interest."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from cryodask.io.volume import read_region
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.seeding import Balls, make_balls
from cryodask.search.tiles import Tile

log = logging.getLogger("cryodask")
SLAB_VOXELS = 2**24


@dataclass(frozen=True)
class SearchArea:
    """The voxels to search.

    Parameters
    ----------
    shape
        (z, y, x) of the tomogram.
    box
        One slice an axis: the region of interest.
    mask
        Path of the tomogram mask, or none.
    threshold
        Mask values above it are searched.
    count
        Voxels searched.
    balls
        What the seeds reach, or none.
    """

    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    mask: str | None
    threshold: float
    count: int = 0
    balls: Balls | None = None

    @property
    def is_everything(self) -> bool:
        """Whether every voxel is searched."""
        return (
            self.mask is None
            and self.balls is None
            and all((s.start, s.stop) == (0, size) for s, size in zip(self.box, self.shape, strict=True))
        )

    def select(self, region: tuple[slice, ...]) -> np.ndarray:
        """Return which voxels of a region (z, y, x) are searched."""
        inside = [
            (np.arange(r.start, r.stop) >= b.start) & (np.arange(r.start, r.stop) < b.stop)
            for r, b in zip(region, self.box, strict=True)
        ]
        selected = inside[0][:, None, None] & inside[1][:, None] & inside[2]
        if self.mask is not None and selected.any():
            selected = selected & (read_region(self.mask, region) > self.threshold)
        if self.balls is not None and selected.any():
            selected = selected & self.balls.inside(region)
        return selected

    def has(self, tile: Tile) -> bool:
        """Whether a tile has a voxel to search."""
        return bool(self.select(tile.slices).any())


class Selection(Protocol):
    """Voxels of a grid that are searched."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the grid."""
        ...

    @property
    def is_everything(self) -> bool:
        """Whether every voxel is searched."""
        ...

    def select(self, region: tuple[slice, ...]) -> np.ndarray:
        """Return which voxels of a region (z, y, x) are searched."""
        ...

    def has(self, tile: Tile) -> bool:
        """Whether a tile has a voxel to search."""
        ...


def write_selection(selection: Selection, folder: Path) -> None:
    """Write a selection into constants, unless it is everything."""
    if selection.is_everything:
        return
    stored = constants.create_array(constants.mask_path(folder), selection.shape, "uint8")
    for region in _slabs(selection.shape):
        stored[region] = selection.select(region).astype(np.uint8)


def search_area(inputs: MatchInputs) -> SearchArea:
    """Make the search area of a match.

    Raises
    ------
    InputError
        Where it selects no voxel.
    """
    parameters = inputs.parameters
    mask = parameters.locate(parameters.tomogram_mask) if parameters.tomogram_mask else None
    threshold = _mask_threshold(mask, inputs) if mask else 0.0
    area = SearchArea(inputs.shape, _region(inputs), mask, threshold, balls=make_balls(inputs))
    count = sum(int(np.count_nonzero(area.select(region))) for region in _slabs(inputs.shape))
    if not count:
        region_is_empty = any(s.start == s.stop for s in area.box)
        key = "tomogram_mask" if mask and not region_is_empty else "region"
        if area.balls is not None and not region_is_empty:
            key = "orientations.reach"
        raise parameters.source.error(f"{parameters.source.label(key)}: selects no voxel")
    return replace(area, count=count)


def _region(inputs: MatchInputs) -> tuple[slice, slice, slice]:
    region, found = inputs.parameters.region, []
    for axis, (name, size) in enumerate(zip("zyx", inputs.shape, strict=True)):
        interval = getattr(region, name) if region is not None else None
        if interval is None:
            found.append(slice(0, size))
            continue
        low, high = ((edge - inputs.origin[axis]) / inputs.voxel_size for edge in interval)
        start, stop = np.clip([np.ceil(low - 1e-6), np.floor(high + 1e-6) + 1], 0, size).astype(int)
        found.append(slice(int(start), int(max(start, stop))))
    return found[0], found[1], found[2]


def _mask_threshold(path: str, inputs: MatchInputs) -> float:
    """Return the value above which the mask is "in": between its two values, or 0.5 of a graded mask."""
    values: set[float] = set()
    for region in _slabs(inputs.shape):
        if len(values) <= 2:
            values.update(np.unique(read_region(path, region)).tolist())
    label = inputs.parameters.source.label("tomogram_mask")
    if not np.isfinite(list(values)).all():
        raise inputs.parameters.source.error(f"{label}: holds voxels that are not finite")
    if len(values) > 2:
        log.warning("%s%s has fractions, cut at 0.5", inputs.parameters.source.place, label)
        return 0.5
    if len(values) == 1:
        return 0.5 * max(values)
    return 0.5 * (min(values) + max(values))


def _slabs(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    rows = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], rows):
        yield slice(first, min(first + rows, shape[0])), slice(0, shape[1]), slice(0, shape[2])
