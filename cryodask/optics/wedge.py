"""Which frequencies a tilt series samples: slab by slab, and as the filled wedge between its limits.

The tilt axis is y, so nothing here depends on ky: results have length 1 along it and broadcast.
"""

import math

import numpy as np

# half thickness of a slab, in Fourier pixels of the box (STOPGAP: a linear fall cut at exp(-2))
SLAB_HALF_WIDTH = 1.0 - math.exp(-2.0)


def in_slab(kz: np.ndarray, kx: np.ndarray, angle: float, box: int, voxel_size: float) -> np.ndarray:
    """Say which frequencies lie in the slab that one tilt samples.

    Parameters
    ----------
    kz, kx
        Broadcastable, 1/angstrom.
    angle
        Tilt, degrees: the slab holds y and (x, z) = (cos, sin).
    box
        Edge of the box whose Fourier pixel measures the slab's thickness, voxels.
    voxel_size
        Angstrom.
    """
    theta = math.radians(angle)
    distance = np.abs(kz * math.cos(theta) - kx * math.sin(theta))
    return distance * (box * voxel_size) < SLAB_HALF_WIDTH


def slice_wedge(
    kz: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    angles: np.ndarray,
    box: int,
    voxel_size: float,
) -> np.ndarray:
    """Return how many tilts sample each frequency (as the wedge of STOPGAP).

    Parameters
    ----------
    kz, ky, kx
        Broadcastable, 1/angstrom; any slab of a half spectrum.
    angles
        (T,) degrees.
    box
        Edge of the box whose Fourier pixel measures a slab's thickness, voxels.
    voxel_size
        Angstrom.

    Returns
    -------
    numpy.ndarray
        int32, the shape of kz, ky, kx together but 1 along y.
    """
    count = np.zeros(_shape_without_y(kz, ky, kx), dtype=np.int32)
    for angle in np.atleast_1d(angles):
        count += in_slab(kz, kx, angle, box, voxel_size)
    return count


def filled_wedge(
    kz: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    angle_range: tuple[float, float],
    box: int,
    voxel_size: float,
) -> np.ndarray:
    """Say which frequencies lie between the limits of a tilt series, its limiting slabs included.

    Parameters
    ----------
    kz, ky, kx
        Broadcastable, 1/angstrom; any slab of a half spectrum.
    angle_range
        Least and greatest tilt, degrees.
    box
        Edge of the template box, voxels.
    voxel_size
        Angstrom.

    Returns
    -------
    numpy.ndarray
        bool, the shape of kz, ky, kx together but 1 along y.
    """
    least, greatest = angle_range
    inside = np.zeros(_shape_without_y(kz, ky, kx), dtype=bool)
    inside |= np.mod(np.degrees(np.arctan2(kz, kx)) - least, 180.0) <= greatest - least
    for limit in angle_range:
        inside |= in_slab(kz, kx, limit, box, voxel_size)
    return inside


def _shape_without_y(kz: np.ndarray, ky: np.ndarray, kx: np.ndarray) -> tuple[int, ...]:
    shape = np.broadcast_shapes(np.shape(kz), np.shape(ky), np.shape(kx))
    return (*shape[:-2], 1, shape[-1])
