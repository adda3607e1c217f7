"""What stands in a tomogram before it is imaged: particles and vesicles, drawn region by region."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cryodask.simulate.placement import rotations_of
from cryodask.simulate.structure import Structure


@dataclass(frozen=True)
class Vesicle:
    """A spherical lipid bilayer: two leaflets 36 angstrom apart.

    Parameters
    ----------
    centre : (x, y, z), angstrom from the first voxel
    radius : angstrom, to the middle of the bilayer
    density : float, of a leaflet, in the units of the particles
    """

    centre: tuple[float, float, float]
    radius: float
    density: float = 1.0

    def distance(self, place: np.ndarray) -> float:
        """Return the distance from a point (x, y, z), angstrom, to the outer face of the bilayer."""
        return float(abs(np.linalg.norm(place - np.array(self.centre)) - self.radius) - 25.0)

    def profile(self, distance: np.ndarray) -> np.ndarray:
        """Return the density at distances (angstrom) from the centre."""
        from_leaflet = np.abs(distance - self.radius) - 18.0
        return self.density * np.exp(-((from_leaflet / 8.0) ** 2) / 2)


@dataclass(frozen=True)
class Scene:
    """Every object of a tomogram, at places in angstrom from the first voxel.

    Parameters
    ----------
    structures : {name: structure}
    poses : DataFrame
        template, x_a, y_a, z_a, qw, qx, qy, qz, one row a particle.
    vesicles : sequence of Vesicle
    """

    structures: dict[str, Structure]
    poses: pd.DataFrame
    vesicles: Sequence[Vesicle] = ()

    def density(self, start: tuple[int, ...], shape: tuple[int, ...], voxel_size: float) -> np.ndarray:
        """Draw one region.

        Parameters
        ----------
        start, shape : (z, y, x), voxels
            First voxel (may be negative) and size.
        voxel_size : angstrom

        Returns
        -------
        (z, y, x) float32
        """
        volume = np.zeros(shape, np.float32)
        places = self.poses[["x_a", "y_a", "z_a"]].to_numpy() / voxel_size - np.array(start)[::-1]
        for name, place, rotation in zip(
            self.poses["template"], places, rotations_of(self.poses), strict=True
        ):
            structure = self.structures[name]
            box = overlap(place, structure.diameter / voxel_size / 2 + 4, shape)
            if box is not None:
                low = np.array([s.start for s in box])
                size = tuple(s.stop - s.start for s in box)
                volume[box] += structure.density(size, voxel_size, rotation, place - low[::-1])
        for vesicle in self.vesicles:
            volume += _draw_vesicle(vesicle, start, shape, voxel_size)
        return volume


def overlap(place: np.ndarray, reach: float, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Return the part of a region within `reach` voxels of a place (x, y, z) on each axis, None if empty."""
    low = np.maximum(np.floor(place[::-1] - reach), 0).astype(int)
    high = np.minimum(np.ceil(place[::-1] + reach) + 1, shape).astype(int)
    return tuple(map(slice, low.tolist(), high.tolist())) if np.all(low < high) else None


def _draw_vesicle(
    vesicle: Vesicle, start: tuple[int, ...], shape: tuple[int, ...], voxel_size: float
) -> np.ndarray:
    """Return the vesicle's density in a region, (z, y, x) float32."""
    axes = ((np.arange(n) + s) * voxel_size for s, n in zip(start, shape, strict=True))
    z, y, x = (axis - c for axis, c in zip(axes, vesicle.centre[::-1], strict=True))
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    return vesicle.profile(distance).astype(np.float32)
