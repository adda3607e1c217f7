"""Central slices of a template's spectrum, and the projections they transform to.

The Fourier slice theorem (Crowther, DeRosier and Klug 1970) with trilinear interpolation; padding and the
gridding correction (division by sinc^2) trade memory for the interpolation's error. Lengths are voxels,
frequencies cycles per pixel; matrices act on (x, y, z).
"""

from typing import Any, Literal

import numba
import numpy as np
import scipy.fft

from cryodask.arrays.module import array_module
from cryodask.kernels.cuda_slices import cuda_slices
from cryodask.kernels.fft_library import fft_library

Gridding = Literal["none", "sinc2"]
# Frequencies this little below qx = 0 are not worth their Friedel mate.
_NEGATIVE = -1e-8


def template_spectrum(volume: Any, *, padding: int = 1, gridding: Gridding = "none") -> Any:
    """Return the half spectrum of a template, from which slices are cut.

    Parameters
    ----------
    volume
        (n, n, n), (z, y, x), n even; its centre is voxel n//2.
    padding
        The volume is padded with zeros to m = padding n.
    gridding
        ``sinc2`` divides the padded volume by the transform of the interpolation's kernel.

    Returns
    -------
    (m, m, m//2 + 1) complex64; the origin of frequencies is at (m//2, m//2, 0), that of space at index 0.
    """
    xp = array_module(volume)
    n, m = volume.shape[0], padding * volume.shape[0]
    padded = xp.zeros((m, m, m), xp.float32)
    start = m // 2 - n // 2
    padded[start : start + n, start : start + n, start : start + n] = volume
    if gridding == "sinc2":
        fall = np.sinc((np.arange(m) - m // 2) / m) ** 2
        for axis in range(3):
            padded /= xp.asarray(np.expand_dims(fall, tuple({0, 1, 2} - {axis})), dtype=xp.float32)
    spectrum = fft_library(xp).rfftn(xp.fft.ifftshift(padded))
    return xp.ascontiguousarray(xp.fft.fftshift(spectrum, axes=(0, 1))).astype(xp.complex64, copy=False)


def slice_axes(
    matrices: np.ndarray,
    *,
    scale: float = 1.0,
    magnification: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Return what carries an image's frequency (kx, ky) into the template's spectrum, (N, 3, 2) float64.

    Parameters
    ----------
    matrices
        (N, 3, 3): E of `geometry.zyz`, R transposed.
    scale
        Voxel size of the template over the pixel size of the image.
    magnification
        A, row-major, carries positions (y, x) of the image to those of the specimen; frequencies take its
        inverse transpose.
    """
    axes = scale * np.asarray(matrices, np.float64)[..., :2]
    if magnification is None:
        return axes
    turned = np.linalg.inv(np.reshape(magnification, (2, 2))).T[::-1, ::-1]
    return axes @ turned


def extract_slices(spectrum: Any, axes: np.ndarray, box: int, *, limit: float = 1.0) -> Any:
    """Cut central slices out of a template's spectrum.

    Parameters
    ----------
    spectrum
        (m, m, m//2 + 1) complex64 from `template_spectrum`.
    axes
        (N, 3, 2) from `slice_axes`.
    box
        Edge n of the projections, pixels.
    limit
        Frequencies longer than this (cycles per pixel) are left 0, since a filter removes them.

    Returns
    -------
    (N, n, n//2 + 1) complex64, un-shifted, of projections with their centre at index 0. 0 at the origin and
    outside the spectrum.
    """
    axes = np.ascontiguousarray(axes, np.float64)
    ky, kx = scipy.fft.fftfreq(box), scipy.fft.rfftfreq(box)
    if array_module(spectrum) is not np:
        return cuda_slices(spectrum, axes, ky, kx, limit)
    out = np.empty((len(axes), box, box // 2 + 1), np.complex64)
    _cut(spectrum, axes, ky, kx, limit * limit, out)
    return out


def project(slices: Any, filters: Any) -> Any:
    """Return dark projections, un-normalised: (..., n, n) float32, centre at pixel n//2.

    Parameters
    ----------
    slices
        (..., n, n//2 + 1) from `extract_slices`.
    filters
        Broadcastable to the slices: the CTF times the filters, real or complex.
    """
    return project_centred(slices, filters * array_module(slices).asarray(dark_and_centred(slices.shape[-2])))


def project_centred(slices: Any, filters: Any) -> Any:
    """As `project`, for filters that are multiplied by `dark_and_centred` already."""
    xp = array_module(slices)
    box = slices.shape[-2]
    image = fft_library(xp).irfft2(slices * filters, (box, box), axes=(-2, -1))
    return image.astype(xp.float32, copy=False)


def dark_and_centred(box: int) -> np.ndarray:
    """Return -(-1)^(ky + kx), (n, n//2 + 1) float32: particles dark, their centre at pixel n//2."""
    sign = 1 - 2 * (np.arange(box) % 2)
    return -(sign[:, None] * sign[None, : box // 2 + 1]).astype(np.float32)


def unit_energy(projections: Any) -> Any:
    """Return projections less the mean of their border, scaled to unit energy; a flat one becomes 0.

    Parameters
    ----------
    projections
        (..., n, n) float32.
    """
    xp = array_module(projections)
    if xp is np:
        out = np.empty(projections.shape, np.float32)
        flat = out.reshape(-1, *projections.shape[-2:])
        _unit_energy(np.ascontiguousarray(projections, np.float32).reshape(flat.shape), flat)
        return out
    centred = projections - border_mean(projections)
    energy = xp.square(centred).sum(axis=(-2, -1), keepdims=True, dtype=xp.float64)
    safe = xp.where(energy > 0, energy, 1.0)
    return (centred / xp.sqrt(safe)).astype(xp.float32)


def border_mean(projections: Any) -> Any:
    """Return the mean of the 4(n - 1) border pixels, (..., 1, 1)."""
    n = projections.shape[-1]
    rows = projections[..., 0, :].sum(-1) + projections[..., -1, :].sum(-1)
    columns = projections[..., 1:-1, 0].sum(-1) + projections[..., 1:-1, -1].sum(-1)
    return ((rows + columns) / (4 * (n - 1)))[..., None, None]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _unit_energy(projections: np.ndarray, out: np.ndarray) -> None:
    n = projections.shape[1]
    for r in range(projections.shape[0]):
        image, border = projections[r], 0.0
        for i in range(n):
            border += image[0, i] + image[n - 1, i]
        for i in range(1, n - 1):
            border += image[i, 0] + image[i, n - 1]
        mean, energy = np.float32(border / (4 * (n - 1))), 0.0
        for y in range(n):
            row = np.float32(0.0)
            for x in range(n):
                row += (image[y, x] - mean) ** 2
            energy += float(row)
        scale = np.float32(1.0 / np.sqrt(energy)) if energy > 0.0 else np.float32(0.0)
        for y in range(n):
            for x in range(n):
                out[r, y, x] = (image[y, x] - mean) * scale


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _cut(
    spectrum: np.ndarray,
    axes: np.ndarray,
    ky: np.ndarray,
    kx: np.ndarray,
    limit_squared: float,
    out: np.ndarray,
) -> None:
    m = spectrum.shape[0]
    half = m // 2
    for row in range(axes.shape[0]):
        a = axes[row]
        for y in range(ky.size):
            for x in range(kx.size):
                u, v = kx[x], ky[y]
                if u * u + v * v > limit_squared:
                    out[row, y, x] = 0.0
                    continue
                qx = a[0, 0] * u + a[0, 1] * v
                qy = a[1, 0] * u + a[1, 1] * v
                qz = a[2, 0] * u + a[2, 1] * v
                mate = qx < _NEGATIVE
                if mate:
                    qx, qy, qz = -qx, -qy, -qz
                px, py, pz = max(qx * m, 0.0), qy * m + half, qz * m + half
                inside = px <= half and 0.0 <= py <= m - 1 and 0.0 <= pz <= m - 1
                value = _trilinear(spectrum, px, py, pz) if inside else np.complex64(0.0)
                out[row, y, x] = np.conj(value) if mate else value
        out[row, 0, 0] = 0.0


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _trilinear(spectrum: np.ndarray, px: float, py: float, pz: float) -> complex:
    m, width = spectrum.shape[0], spectrum.shape[2]
    x0, y0, z0 = int(px), int(py), int(pz)
    x1, y1, z1 = min(x0 + 1, width - 1), min(y0 + 1, m - 1), min(z0 + 1, m - 1)
    fx, fy, fz = np.float32(px - x0), np.float32(py - y0), np.float32(pz - z0)
    one = np.float32(1.0)
    low = (one - fy) * ((one - fx) * spectrum[z0, y0, x0] + fx * spectrum[z0, y0, x1])
    low += fy * ((one - fx) * spectrum[z0, y1, x0] + fx * spectrum[z0, y1, x1])
    high = (one - fy) * ((one - fx) * spectrum[z1, y0, x0] + fx * spectrum[z1, y0, x1])
    high += fy * ((one - fx) * spectrum[z1, y1, x0] + fx * spectrum[z1, y1, x1])
    return (one - fz) * low + fz * high
