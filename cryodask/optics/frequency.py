"""Spatial frequencies of real Fourier transforms, and their length in pixels of the template box."""

import numpy as np
import scipy.fft


def half_frequencies(
    shape: tuple[int, int, int], voxel_size: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frequencies of a volume's half spectrum, in un-shifted order.

    Parameters
    ----------
    shape
        (nz, ny, nx) of the volume, voxels.
    voxel_size
        Angstrom.

    Returns
    -------
    tuple of numpy.ndarray
        kz (nz, 1, 1), ky (1, ny, 1), kx (1, 1, nx//2 + 1), float64, 1/angstrom. Slices of them are the
        frequencies of a slab.
    """
    nz, ny, nx = shape
    kz = scipy.fft.fftfreq(nz, voxel_size).reshape(-1, 1, 1)
    ky = scipy.fft.fftfreq(ny, voxel_size).reshape(1, -1, 1)
    kx = scipy.fft.rfftfreq(nx, voxel_size).reshape(1, 1, -1)
    return kz, ky, kx


def template_radius(
    kz: np.ndarray, ky: np.ndarray, kx: np.ndarray, box: int, voxel_size: float
) -> np.ndarray:
    """Return the length of frequencies in Fourier pixels of the template box.

    Parameters
    ----------
    kz, ky, kx
        Broadcastable, 1/angstrom.
    box
        Edge of the template box, voxels.
    voxel_size
        Angstrom.
    """
    radius = np.sqrt(kz**2 + ky**2 + kx**2) * (box * voxel_size)
    # whole pixels must come out whole: filters end on them
    return np.round(radius, 10, out=radius)
