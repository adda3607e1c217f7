"""Templates, filters and masks on a coarser grid whose voxel n'//2 stays the centre of rotation."""

import numpy as np
import scipy.fft
from scipy.ndimage import affine_transform


def crop_volume(volume: np.ndarray, size: int) -> np.ndarray:
    """Return a volume on a grid of fewer voxels: its spectrum without the frequencies that this cannot hold.

    Parameters
    ----------
    volume
        (n, n, n), (z, y, x), n even.
    size
        Even edge of the coarser grid, at most n; voxel size//2 shows the place of voxel n//2.

    Returns
    -------
    numpy.ndarray
        (size, size, size) float32, values kept.
    """
    spectrum = crop_half_spectrum(scipy.fft.rfftn(volume.astype(np.float64)), size)
    scale = (size / volume.shape[0]) ** 3
    return (scipy.fft.irfftn(spectrum, (size,) * 3) * scale).astype(np.float32)


def crop_half_spectrum(half: np.ndarray, size: int) -> np.ndarray:
    """Return the half spectrum of a cube on a grid of fewer voxels, its Nyquist frequency 0.

    Parameters
    ----------
    half
        (..., n, n, n//2 + 1), un-shifted order.
    size
        Even edge of the coarser grid.
    """
    cropped = crop_axis(crop_axis(half, size, -3), size, -2)[..., : size // 2 + 1].copy()
    if size % 2 == 0 and size // 2 < half.shape[-1] - 1:
        cropped[..., -1] = 0
    return cropped


def crop_axis(spectrum: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Keep the lowest frequencies along one axis of a full spectrum; Nyquist of an even size is 0.

    Parameters
    ----------
    spectrum
        Un-shifted order along the axis.
    size
        How many are kept.
    axis
        Which axis.
    """
    length = spectrum.shape[axis]
    if size == length:
        return spectrum
    moved = np.moveaxis(spectrum, axis, 0)
    out = np.zeros((size, *moved.shape[1:]), spectrum.dtype)
    low = (size + 1) // 2
    out[:low] = moved[:low]
    out[size - (low - 1) :] = moved[length - (low - 1) :]
    return np.moveaxis(out, 0, axis)


def resample_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Return a mask on a grid of fewer voxels by linear interpolation about the centres.

    Parameters
    ----------
    mask
        (n, n, n), 0 to 1.
    size
        Edge of the coarser grid.
    """
    n = mask.shape[0]
    step = n / size
    offset = n // 2 - step * (size // 2)
    found = affine_transform(mask.astype(np.float64), [step] * 3, [offset] * 3, (size,) * 3, order=1)
    return np.clip(found, 0, 1).astype(np.float32)
