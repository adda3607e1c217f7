"""Rotation of a template or a mask in its cubic box, about voxel n//2."""

from typing import Any, Literal

import numba
import numpy as np
import scipy.ndimage

from cryodask.arrays.module import array_module

Interpolation = Literal["linear", "cubic"]

# Voxels around the box that interpolation inside it reads.
MARGIN = {"linear": 1, "cubic": 3}
SPLINE_DECAY = 12
LEAST_MASK = 1e-3
# Rounding must not push the box's own faces out of it.
EDGE_TOLERANCE = 1e-9


def rotation_coefficients(volume: Any, interpolation: Interpolation) -> Any:
    """Prepare a volume for repeated rotation.

    Parameters
    ----------
    volume
        (n, n, n), (z, y, x); zero outside the box.
    interpolation
        ``linear`` (trilinear) or ``cubic`` (cubic B-spline, prefiltered here, once).

    Returns
    -------
    (n + 2p, n + 2p, n + 2p) float32 coefficients with a margin of p voxels, C order.
    """
    margin = MARGIN[interpolation]
    xp = array_module(volume)
    if interpolation == "linear":
        return xp.pad(xp.asarray(volume, dtype=xp.float32), margin)
    ndimage = _ndimage(volume)
    extended = xp.pad(xp.asarray(volume, dtype=xp.float64), SPLINE_DECAY)
    spline = ndimage.spline_filter(extended, order=3, mode="mirror")
    cut = slice(SPLINE_DECAY - margin, extended.shape[0] - SPLINE_DECAY + margin)
    return xp.ascontiguousarray(spline[cut, cut, cut], dtype=xp.float32)


def rotate(coefficients: Any, matrix: np.ndarray, interpolation: Interpolation) -> Any:
    """Return the rotated volume t_R(v) = t(Rᵀv), v in voxels from n//2.

    Parameters
    ----------
    coefficients
        (n + 2p)^3 from :func:`rotation_coefficients` with the same interpolation.
    matrix
        (3, 3), the active rotation R in (x, y, z).
    interpolation
        ``linear`` or ``cubic``.

    Returns
    -------
    (n, n, n) float32, (z, y, x).
    """
    margin = MARGIN[interpolation]
    n = coefficients.shape[0] - 2 * margin
    # (x, y, z) to (z, y, x): both axes of Rᵀ reversed.
    inverse = np.ascontiguousarray(np.asarray(matrix, dtype=np.float64).T[::-1, ::-1])
    centre = n // 2
    start = centre + margin - inverse @ np.full(3, float(centre))
    if array_module(coefficients) is np:
        sample = _rotate_linear if interpolation == "linear" else _rotate_cubic
        return sample(np.ascontiguousarray(coefficients, dtype=np.float32), inverse, start, n)
    return rotate_by_library(coefficients, inverse, start, interpolation)


def rotate_by_library(
    coefficients: Any, inverse: np.ndarray, start: np.ndarray, interpolation: Interpolation
) -> Any:
    """Sample coefficients at ``start + inverse·v`` for every voxel v of the box: :func:`rotate` on a GPU.

    Parameters
    ----------
    coefficients
        (n + 2p)^3 from :func:`rotation_coefficients`.
    inverse, start
        (3, 3) and (3,), (z, y, x).
    interpolation
        ``linear`` or ``cubic``.
    """
    xp = array_module(coefficients)
    margin = MARGIN[interpolation]
    n = coefficients.shape[0] - 2 * margin
    rotated = _ndimage(coefficients).affine_transform(
        coefficients,
        xp.asarray(inverse),
        offset=xp.asarray(start),
        output_shape=(n, n, n),
        order=1 if interpolation == "linear" else 3,
        mode="constant",
        prefilter=False,
    )
    voxel = xp.arange(n)
    for row, first in zip(inverse, start, strict=True):
        source = first - margin + row[0] * voxel[:, None, None] + row[1] * voxel[:, None] + row[2] * voxel
        rotated *= (source > -EDGE_TOLERANCE) & (source < n - 1 + EDGE_TOLERANCE)
    return rotated


def rotate_mask(coefficients: Any, matrix: np.ndarray) -> Any:
    """Rotate a mask linearly, clip it to [0, 1] and set values below 1e-3 to 0.

    Parameters
    ----------
    coefficients
        (n + 2)^3 from ``rotation_coefficients(mask, "linear")``.
    matrix
        (3, 3), the active rotation R in (x, y, z).

    Returns
    -------
    (n, n, n) float32, (z, y, x).
    """
    rotated = rotate(coefficients, matrix, "linear")
    xp = array_module(rotated)
    xp.minimum(rotated, 1.0, out=rotated)
    rotated[rotated < LEAST_MASK] = 0.0
    return rotated


def _ndimage(array: Any) -> Any:
    if array_module(array) is np:
        return scipy.ndimage
    import cupyx.scipy.ndimage

    return cupyx.scipy.ndimage


@numba.njit(nogil=True, cache=True, inline="always")
def _row_range(start: float, step: float, last: float, n: int) -> tuple[int, int]:
    """Return the first and the end x for which 0 <= start + x*step <= last."""
    if abs(step) < 1e-12:
        return (0, n) if -EDGE_TOLERANCE <= start <= last + EDGE_TOLERANCE else (0, 0)
    first, end = -start / step, (last - start) / step
    if first > end:
        first, end = end, first
    return max(0, int(np.ceil(first - EDGE_TOLERANCE))), min(n, int(np.floor(end + EDGE_TOLERANCE)) + 1)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _rotate_linear(c: np.ndarray, inverse: np.ndarray, start: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((n, n, n), np.float32)
    size = c.shape[0]
    flat = c.ravel()
    dz, dy, dx = inverse[0, 2], inverse[1, 2], inverse[2, 2]
    for z in range(n):
        for y in range(n):
            z0 = start[0] + inverse[0, 0] * z + inverse[0, 1] * y
            y0 = start[1] + inverse[1, 0] * z + inverse[1, 1] * y
            x0 = start[2] + inverse[2, 0] * z + inverse[2, 1] * y
            first, end = _inside(z0 - 1.0, y0 - 1.0, x0 - 1.0, dz, dy, dx, n - 1.0, n)
            for x in range(first, end):
                pz, py, px = z0 + x * dz, y0 + x * dy, x0 + x * dx
                iz = min(max(int(pz), 0), size - 2)
                iy = min(max(int(py), 0), size - 2)
                ix = min(max(int(px), 0), size - 2)
                fz, fy, fx = np.float32(pz - iz), np.float32(py - iy), np.float32(px - ix)
                i = (iz * size + iy) * size + ix
                j = i + size * size
                a = flat[i] + fx * (flat[i + 1] - flat[i])
                b = flat[i + size] + fx * (flat[i + size + 1] - flat[i + size])
                d = flat[j] + fx * (flat[j + 1] - flat[j])
                e = flat[j + size] + fx * (flat[j + size + 1] - flat[j + size])
                a += fy * (b - a)
                d += fy * (e - d)
                out[z, y, x] = a + fz * (d - a)
    return out


@numba.njit(nogil=True, cache=True, inline="always")
def _inside(
    z0: float, y0: float, x0: float, dz: float, dy: float, dx: float, last: float, n: int
) -> tuple[int, int]:
    az, bz = _row_range(z0, dz, last, n)
    ay, by = _row_range(y0, dy, last, n)
    ax, bx = _row_range(x0, dx, last, n)
    return max(az, ay, ax), min(bz, by, bx)


@numba.njit(nogil=True, cache=True, inline="always")
def _spline_weights(f: Any) -> Any:
    g = np.float32(1.0) - f
    sixth = np.float32(1.0 / 6.0)
    two_thirds = np.float32(2.0 / 3.0)
    half = np.float32(0.5)
    two = np.float32(2.0)
    return (
        g * g * g * sixth,
        two_thirds - half * f * f * (two - f),
        two_thirds - half * g * g * (two - g),
        f * f * f * sixth,
    )


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _rotate_cubic(c: np.ndarray, inverse: np.ndarray, start: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((n, n, n), np.float32)
    size = c.shape[0]
    flat = c.ravel()
    dz, dy, dx = inverse[0, 2], inverse[1, 2], inverse[2, 2]
    for z in range(n):
        for y in range(n):
            z0 = start[0] + inverse[0, 0] * z + inverse[0, 1] * y
            y0 = start[1] + inverse[1, 0] * z + inverse[1, 1] * y
            x0 = start[2] + inverse[2, 0] * z + inverse[2, 1] * y
            first, end = _inside(z0 - 3.0, y0 - 3.0, x0 - 3.0, dz, dy, dx, n - 1.0, n)
            for x in range(first, end):
                pz, py, px = z0 + x * dz, y0 + x * dy, x0 + x * dx
                iz = min(max(int(pz), 1), size - 3)
                iy = min(max(int(py), 1), size - 3)
                ix = min(max(int(px), 1), size - 3)
                wz = _spline_weights(np.float32(pz - iz))
                wy = _spline_weights(np.float32(py - iy))
                wx = _spline_weights(np.float32(px - ix))
                base = ((iz - 1) * size + iy - 1) * size + ix - 1
                total = np.float32(0.0)
                for a in range(4):
                    plane = np.float32(0.0)
                    for b in range(4):
                        i = base + (a * size + b) * size
                        line = (
                            wx[0] * flat[i] + wx[1] * flat[i + 1] + wx[2] * flat[i + 2] + wx[3] * flat[i + 3]
                        )
                        plane += wy[b] * line
                    total += wz[a] * plane
                out[z, y, x] = total
    return out
