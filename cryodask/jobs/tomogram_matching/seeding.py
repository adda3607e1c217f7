"""Searches near seeds: which rotations each voxel is scored with, by the orientation of its nearest seed."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy.spatial import KDTree

from cryodask.arrays.npy import load_npz
from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.nearness import are_near
from cryodask.io.header import VolumeHeader
from cryodask.io.seeds import Seeds, read_seeds, seed_options
from cryodask.jobs.tomogram_matching import constants
from cryodask.optics.tilts import TiltSeries
from cryodask.search.store import replacing
from cryodask.search.tiles import Tile

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.inputs import MatchInputs
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

log = logging.getLogger("cryodask")
PAIRS = 2**22  # of a rotation and a seed, held at once
NOWHERE = 0  # the label of voxels that are not searched
SAMPLED_ROWS = 512


@dataclass(frozen=True)
class NearSeeds:
    """How near to its seed a voxel's rotations are; travels with a problem, the seeds themselves by path.

    Parameters
    ----------
    cone, inplane_range, symmetry
        As in `are_near`.
    least_rows
        Rotations of the seed that has fewest.
    """

    cone: float | None
    inplane_range: float | None
    symmetry: str
    least_rows: int

    def allowed(self, rotations: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return which rotations (R, 3, 3) are near which seeds (N, 3, 3), as (R, N)."""
        return are_near(
            rotations, seeds, cone=self.cone, inplane_range=self.inplane_range, symmetry=self.symmetry
        )

    def needed(self, rotations: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return which rotations (R, 3, 3) any seed (N, 3, 3) allows."""
        parts = [self.allowed(rotations[some], seeds).any(axis=1) for some in _chunks(rotations, seeds)]
        return np.concatenate(parts) if parts else np.zeros(0, bool)


@dataclass(frozen=True, eq=False)
class TileSeeds:
    """The seeds of a tile.

    Parameters
    ----------
    label
        (z, y, x) int32: 1 + place of a voxel's seed in `numbers`, or `NOWHERE`.
    numbers
        Numbers of the seeds among all.
    matrices
        (N, 3, 3) their orientations.
    """

    label: np.ndarray
    numbers: np.ndarray
    matrices: np.ndarray

    def count_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return (z, y, x) how many rotations each voxel has, given those of every seed."""
        return np.asarray(np.concatenate([[0], rows[self.numbers]])[self.label])


@dataclass(frozen=True, eq=False)
class Balls:
    """The voxels within a radius of any position, (N, 3) in (z, y, x), both in voxels."""

    positions: np.ndarray
    radius: float

    def inside(self, region: tuple[slice, ...]) -> np.ndarray:
        """Return which voxels of a region are inside."""
        low = np.array([part.start for part in region])
        high = np.array([part.stop for part in region])
        found = np.zeros(high - low, bool)
        reached = (self.positions + self.radius >= low) & (self.positions - self.radius <= high - 1)
        for position in self.positions[reached.all(axis=1)]:
            first = np.maximum(np.ceil(position - self.radius), low).astype(int)
            last = np.minimum(np.floor(position + self.radius) + 1, high).astype(int)
            z, y, x = (np.arange(a, b) - p for a, b, p in zip(first, last, position, strict=True))
            ball = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= self.radius**2
            found[tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))] |= ball
        return found


def load_seeds(
    parameters: "MatchParameters", header: VolumeHeader, voxel_size: float, tilts: TiltSeries | None
) -> Seeds | None:
    """Read the seeds of a match; none where its orientations are free.

    Raises
    ------
    InputError
        A table that cannot be read, or has no seed inside the tomogram, or none with an in-plane angle where
        that is restricted.
    """
    prior = parameters.orientations
    if prior is None:
        return None
    pixel_size = tilts.pixel_size if tilts is not None else None
    options = seed_options(
        voxel_size=voxel_size,
        binning=voxel_size / pixel_size if pixel_size else parameters.binning,
        unbinned=tilts.tomogram_shape if tilts is not None else None,
        shape=header.shape,
        origin=header.origin,
    )
    with parameters.source.placed("orientations.near"):
        seeds = read_seeds(
            parameters.locate(prior.near), parameters.display_name, parameters.tomo_num, options
        )
    if prior.inplane_range is not None and not seeds.has_inplane:
        text = f"{prior.near} holds normals, which leave the in-plane angle open"
        raise parameters.source.wrong("orientations.inplane_range", f"{prior.inplane_range:g}", text)
    return _inside(seeds, parameters, header.shape)


def _inside(seeds: Seeds, parameters: "MatchParameters", shape: tuple[int, int, int]) -> Seeds:
    kept = np.all((seeds.positions >= -0.5) & (seeds.positions < np.array(shape) - 0.5), axis=1)
    if not kept.any():
        low, high = seeds.positions.min(axis=0), seeds.positions.max(axis=0)
        extent = ", ".join(f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("zyx", low, high, strict=True))
        size = ",".join(map(str, shape))
        raise parameters.source.error(
            f"orientations.near: no seed lies inside the tomogram of {size} voxels (z,y,x): they span "
            f"{extent}; other units, or another binning?"
        )
    if not kept.all():
        text = "%sorientations.near: %d of %d seeds lie outside the tomogram, left out"
        log.warning(text, parameters.source.place, np.count_nonzero(~kept), len(kept))
    return Seeds(seeds.positions[kept], seeds.matrices[kept], seeds.has_inplane)


def make_balls(inputs: "MatchInputs") -> Balls | None:
    """Return the voxels that seeds reach; none where they reach everywhere."""
    prior = inputs.parameters.orientations
    if prior is None or prior.reach is None or inputs.seeds is None:
        return None
    return Balls(inputs.seeds.positions, prior.reach / inputs.voxel_size)


def count_rows(inputs: "MatchInputs") -> np.ndarray:
    """Return (N,) how many rotations of a template's list each seed allows."""
    prior, seeds = inputs.parameters.orientations, inputs.seeds
    if prior is None or seeds is None:
        return np.zeros(0, np.int64)
    near = NearSeeds(prior.cone, prior.inplane_range, inputs.parameters.symmetry, 0)
    matrices = rotation_from_euler(inputs.angles).as_matrix()
    total = np.zeros(len(seeds), np.int64)
    for some in _chunks(matrices, seeds.matrices):
        total += near.allowed(matrices[some], seeds.matrices).sum(axis=0)
    return total


def near_seeds(inputs: "MatchInputs") -> NearSeeds | None:
    """Return how near to seeds a template is searched; none where its orientations are free.

    Raises
    ------
    InputError
        Where a seed has no rotation of the list near it.
    """
    prior = inputs.parameters.orientations
    if prior is None:
        return None
    rows = inputs.seed_rows
    if not rows.all():
        widths = ", ".join(
            f"{name} = {value:g}"
            for name, value in (("cone", prior.cone), ("inplane_range", prior.inplane_range))
            if value is not None
        )
        raise inputs.parameters.source.error(
            f"orientations: {np.count_nonzero(rows == 0)} of {len(rows)} seeds have no rotation of the list "
            f"within {widths}; expected at least its angular step"
        )
    return NearSeeds(prior.cone, prior.inplane_range, inputs.parameters.symmetry, int(rows.min()))


def write_seeds(folder: Path, seeds: Seeds) -> None:
    """Write the seeds of a run."""
    with replacing(folder / "seeds.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, positions=seeds.positions, matrices=seeds.matrices)


def tile_seeds(folder: str, tile: Tile) -> TileSeeds:
    """Return the seeds of a tile; kept per process, since a tile has many tasks."""
    return _tile_seeds(*constants.file_now(Path(folder) / "seeds.npz"), tile.start, tile.stop)


@functools.lru_cache(maxsize=4)
def _tile_seeds(
    path: Path, written: tuple[int, int], start: tuple[int, ...], stop: tuple[int, ...]
) -> TileSeeds:
    stored = load_npz(path)
    positions, matrices = stored["positions"], stored["matrices"]
    tile = Tile(0, start, stop, ())
    selected = constants.read_search_mask(path.parent, tile)
    if selected is None:
        selected = np.ones(tile.shape, bool)
    nearest = KDTree(positions).query(np.argwhere(selected) + start)[1]
    numbers, place = np.unique(np.asarray(nearest, np.int64), return_inverse=True)
    label = np.full(tile.shape, NOWHERE, np.int32)
    label[selected] = place + 1
    return TileSeeds(label, numbers, matrices[numbers])


def scored_rows(folder: str, rows: np.ndarray, like: xr.DataArray) -> da.Array:
    """Return (z, y, x) lazily how many rotations each voxel of a run is scored with.

    Parameters
    ----------
    folder
        The run's constants.
    rows
        (seed,) those of each seed.
    like
        A map (template, z, y, x) whose blocks are the tiles.
    """

    def count(block_info: Any = None) -> np.ndarray:
        start, stop = zip(*block_info[None]["array-location"], strict=True)
        return tile_seeds(folder, Tile(0, start, stop, ())).count_rows(rows)

    return da.map_blocks(count, chunks=like.chunks[1:] if like.chunks else (), dtype=np.int64)


def needed_share(inputs: "MatchInputs", near: NearSeeds, tile: Tile) -> float:
    """Return about which share of the rotations a tile needs, from seeds in and near it."""
    if inputs.seeds is None:
        return 1.0
    prior = inputs.parameters.orientations
    reach = prior.reach / inputs.voxel_size if prior is not None and prior.reach else 0.0
    inside = (inputs.seeds.positions >= np.array(tile.start) - reach) & (
        inputs.seeds.positions <= np.array(tile.stop) - 1 + reach
    )
    matrices = inputs.seeds.matrices[inside.all(axis=1)]
    if not len(matrices):
        middle = 0.5 * (np.array(tile.start) + tile.stop)
        matrices = inputs.seeds.matrices[[int(KDTree(inputs.seeds.positions).query(middle)[1])]]
    every = np.unique(np.linspace(0, len(inputs.angles) - 1, SAMPLED_ROWS).round().astype(int))
    rows = rotation_from_euler(inputs.angles[every]).as_matrix()
    return float(near.needed(rows, matrices).mean())


def _chunks(rotations: np.ndarray, seeds: np.ndarray) -> Iterator[slice]:
    length = max(1, PAIRS // max(len(seeds), 1))
    for first in range(0, len(rotations), length):
        yield slice(first, first + length)
