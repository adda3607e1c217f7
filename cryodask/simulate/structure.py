"""Particles that can be drawn in any orientation, at any sub-voxel position and at any voxel size."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError

# Every Gaussian is broadened by this many voxels, so that the sampled density holds little beyond Nyquist.
BLUR_VOXELS = 0.6
# Gaussians are drawn out to this many standard deviations.
CUT_SIGMAS = 4.0
# Of the highest density of a map: less is empty space around the particle.
EMPTY = 0.01


class Structure(Protocol):
    """What the simulators ask of a particle."""

    @property
    def diameter(self) -> float:
        """Diameter of the sphere about the centre of rotation that holds the particle, angstrom."""

    @property
    def symmetry(self) -> str:
        """Point group, in the settings of `geometry.symmetry`."""

    def density(
        self, shape: tuple[int, int, int], voxel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw the particle, rotated actively, with its centre of rotation at voxel `centre` (x, y, z)."""

    def projection(
        self, shape: tuple[int, int], pixel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw its projection along z, centred at pixel `centre` (x, y); values are voxel sums."""


@dataclass(frozen=True)
class GaussianStructure:
    """A particle as a sum of isotropic Gaussians: rotation, shift and projection of it are exact.

    Parameters
    ----------
    centres : (N, 3) float64, x y z, angstrom from the centre of rotation
    sigmas : (N,) float64, angstrom
    weights : (N,) float64
        Height of each Gaussian at its centre; blurring to a voxel size keeps its volume.
    symmetry : str
    """

    centres: np.ndarray
    sigmas: np.ndarray
    weights: np.ndarray
    symmetry: str = "C1"

    @cached_property
    def diameter(self) -> float:
        """Diameter of the sphere that holds every Gaussian to two sigma, angstrom."""
        return float(2 * np.max(np.linalg.norm(self.centres, axis=1) + 2 * self.sigmas))

    def density(
        self, shape: tuple[int, int, int], voxel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw the particle in a volume.

        Parameters
        ----------
        shape : (z, y, x)
        voxel_size : angstrom
        rotation : one Rotation, active, in (x, y, z)
        centre : (3,), x y z, voxels
            Where the centre of rotation lies, voxel centres at whole numbers.

        Returns
        -------
        (z, y, x) float32
        """
        widths = np.hypot(self.sigmas, BLUR_VOXELS * voxel_size)
        heights = self.weights * (self.sigmas / widths) ** 3
        places = rotation.apply(self.centres) / voxel_size + centre
        x, y, z = (_profiles(places[:, i], widths / voxel_size, shape[2 - i]) for i in range(3))
        layers = np.einsum("gz,gy->zyg", z * heights[:, None].astype(np.float32), y, optimize=True)
        return layers @ x

    def projection(
        self, shape: tuple[int, int], pixel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw the projection of the particle along z.

        Parameters
        ----------
        shape : (y, x)
        pixel_size : angstrom
        rotation : one Rotation, active, in (x, y, z)
        centre : (2,), x y, pixels

        Returns
        -------
        (y, x) float32, the sum over z of the density sampled at `pixel_size`
        """
        widths = np.hypot(self.sigmas, BLUR_VOXELS * pixel_size)
        sums = self.weights * (self.sigmas / widths) ** 3 * widths * np.sqrt(2 * np.pi) / pixel_size
        places = rotation.apply(self.centres)[:, :2] / pixel_size + centre
        x, y = (_profiles(places[:, i], widths / pixel_size, shape[1 - i]) for i in range(2))
        return (y * sums[:, None].astype(np.float32)).T @ x


def _profiles(places: np.ndarray, widths: np.ndarray, length: int) -> np.ndarray:
    """Sample one axis of every Gaussian: (N, length) float32."""
    distance = (np.arange(length) - places[:, None]) / widths[:, None]
    return np.where(np.abs(distance) <= CUT_SIGMAS, np.exp(-(distance**2) / 2), 0).astype(np.float32)


@dataclass(frozen=True)
class DensityMap:
    """A particle given as a map, drawn by cubic B-spline interpolation.

    Parameters
    ----------
    volume : (n, n, n) array, z y x, rotated about voxel n//2
    voxel_size : angstrom
        The map is only ever drawn at this voxel size.
    symmetry : str
    """

    volume: np.ndarray
    voxel_size: float
    symmetry: str = "C1"

    @cached_property
    def diameter(self) -> float:
        """Diameter of the sphere that holds all density above a hundredth of the highest, angstrom.

        At most the edge of the map: what lies in its corners is background.
        """
        volume = np.abs(self.volume)
        places = np.argwhere(volume > EMPTY * volume.max()) - np.array(volume.shape) // 2
        widest = 2 * np.sqrt(np.max(np.sum(places**2, axis=1), initial=0)) + 2
        return float(min(widest, max(volume.shape)) * self.voxel_size)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        return ndimage.spline_filter(np.asarray(self.volume, np.float64), order=3, mode="constant")

    def density(
        self, shape: tuple[int, int, int], voxel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw the map in a volume; parameters as for `GaussianStructure.density`."""
        if not np.isclose(voxel_size, self.voxel_size):
            raise InputError(f"voxel_size = {voxel_size:g}: this map has {self.voxel_size:g} angstrom")
        inverse = rotation.as_matrix().T[::-1, ::-1]
        offset = np.array(self.volume.shape) // 2 - inverse @ np.asarray(centre, float)[::-1]
        return ndimage.affine_transform(
            self._coefficients, inverse, offset, shape, order=3, mode="constant", prefilter=False
        ).astype(np.float32)

    def projection(
        self, shape: tuple[int, int], pixel_size: float, rotation: Rotation, centre: np.ndarray
    ) -> np.ndarray:
        """Draw the projection along z; parameters as for `GaussianStructure.projection`."""
        depth = int(np.ceil(np.sqrt(3) * max(self.volume.shape)))
        place = np.array([*centre, depth // 2])
        return self.density((depth, *shape), pixel_size, rotation, place).sum(axis=0)
