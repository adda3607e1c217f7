"""Non-uniform transforms between images, maps, atoms and the polar grid.

Barnett, Magland and af Klinteberg (2019), "A parallel non-uniform fast Fourier transform library", through
finufft. Frequencies are in cycles per half box; lengths are in half boxes.
"""

from typing import Any

import numpy as np

TOLERANCE = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-12}


def polar_from_images(images: np.ndarray, kx: np.ndarray, ky: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the transform of images at frequencies: (4 pi / N) sum I exp(-2 pi i k.X).

    Parameters
    ----------
    images : (m, N, N) real, y x
    kx, ky : (n, W) cycles per half box
    dtype
        complex64 or complex128.

    Returns
    -------
    (m, n, W) of `dtype`
    """
    count, box = len(images), images.shape[-1]
    step = 4 * np.pi / box
    plan = _plan(2, (box, box), count, dtype)
    plan.setpts(*_points(dtype, step * ky, step * kx))
    result = plan.execute(np.ascontiguousarray(images, dtype).reshape(_stacked(count, (box, box))))
    return result.reshape(count, *kx.shape) * dtype.type(step)


def images_from_polar(
    polar: np.ndarray, weights: np.ndarray, kx: np.ndarray, ky: np.ndarray, box: int
) -> np.ndarray:
    """Return the images of weighted polar transforms: (4 pi / N) sum w I exp(+2 pi i k.X), (m, N, N) real."""
    step = 4 * np.pi / box
    count, dtype = len(polar), polar.dtype
    plan = _plan(1, (box, box), count, dtype, sign=1)
    plan.setpts(*_points(dtype, step * ky, step * kx))
    strengths = np.ascontiguousarray((polar * weights).astype(dtype).reshape(count, -1))
    result = plan.execute(strengths[0] if count == 1 else strengths)
    return result.reshape(count, box, box).real * step


def slices_of_map(
    volume: np.ndarray, scale: float, axes: np.ndarray, kx: np.ndarray, ky: np.ndarray, dtype: Any
) -> np.ndarray:
    """Return central slices of a map: (pi / N') sum rho exp(-2 pi i k3.X3).

    Parameters
    ----------
    volume : (N', N', N') real, z y x
    scale
        Voxel size in half boxes.
    axes : (s, 2, 3)
        Unit vectors (x, y, z) of each slice's x and y axes.
    kx, ky : (n, W/2)
        Half of the angles; the other half is the conjugate.
    dtype
        complex64 or complex128.

    Returns
    -------
    (s, n, W/2) of `dtype`
    """
    edge = volume.shape[0]
    points = axes[:, 0, :, None, None] * kx + axes[:, 1, :, None, None] * ky
    x, y, z = (2 * np.pi * scale * points[:, i] for i in range(3))
    plan = _plan(2, (edge, edge, edge), 1, dtype)
    plan.setpts(*_points(dtype, z, y, x))
    result = plan.execute(np.ascontiguousarray(volume, dtype))
    return result.reshape(len(axes), *kx.shape) * dtype.type(np.pi / edge)


def slices_of_atoms(
    positions: np.ndarray, factors: np.ndarray, axes: np.ndarray, kx: np.ndarray, ky: np.ndarray, dtype: Any
) -> np.ndarray:
    """Return central slices of atoms: sum_a G_a(|k|) exp(-2 pi i k3.r_a).

    The shell factors G are a sum of a few products of a function of the shell with one of the atom, so each
    view is one two-dimensional transform of type 3 with that many strengths.

    Parameters
    ----------
    positions : (atoms, 3) x y z, half boxes
    factors : (n, atoms)
        G of each atom on each shell.
    axes, kx, ky, dtype
        As in `slices_of_map`.

    Returns
    -------
    (s, n, W/2) of `dtype`
    """
    import finufft

    precise = dtype == np.complex128
    shells, strengths = _low_rank(factors, 1e-13 if precise else 2e-5)
    real = np.float64 if precise else np.float32
    plan = finufft.Plan(
        3, 2, n_trans=len(strengths), eps=1e-12 if precise else 1e-5, isign=-1, dtype=dtype, nthreads=1
    )
    at_x, at_y = (np.ascontiguousarray(2 * np.pi * k.ravel(), real) for k in (kx, ky))
    strengths = np.ascontiguousarray(strengths, dtype)
    result = np.empty((len(axes), *kx.shape), dtype)
    for i, (x, y) in enumerate(axes):
        plan.setpts(
            np.ascontiguousarray(positions @ x, real),
            np.ascontiguousarray(positions @ y, real),
            None,
            at_x,
            at_y,
            None,
        )
        waves = plan.execute(strengths[0] if len(strengths) == 1 else strengths).reshape(-1, *kx.shape)
        result[i] = np.einsum("nr,rnw->nw", shells, waves)
    return result


def slices_of_atoms_at(
    positions: np.ndarray,
    radii: np.ndarray,
    factors: np.ndarray,
    axes: np.ndarray,
    kx: np.ndarray,
    ky: np.ndarray,
    dtype: Any,
) -> np.ndarray:
    """Return central slices of atoms at any frequencies, as `slices_of_atoms` does on shells.

    Parameters
    ----------
    positions : (atoms, 3) x y z, half boxes
    radii, factors : (n,), (n, atoms)
        G of each atom at rising |k| from 0 to beyond the largest; a cubic spline lies between.
    axes : (s, 2, 3)
    kx, ky : (rows, columns) cycles per half box

    Returns
    -------
    (s, rows, columns) of `dtype`
    """
    from scipy.interpolate import CubicSpline

    precise = dtype == np.complex128
    shells, strengths = _low_rank(factors, 1e-13 if precise else 2e-5)
    at = CubicSpline(radii, shells)(np.hypot(kx, ky))
    result = np.empty((len(axes), *kx.shape), dtype)
    for i, (x, y) in enumerate(axes):
        waves = _waves(positions @ x, positions @ y, strengths, kx, ky, dtype)
        result[i] = np.einsum("ywr,ryw->yw", at, waves)
    return result


def _waves(
    x: np.ndarray, y: np.ndarray, strengths: np.ndarray, kx: np.ndarray, ky: np.ndarray, dtype: Any
) -> np.ndarray:
    import finufft

    precise = dtype == np.complex128
    real = np.float64 if precise else np.float32
    s, t = (np.ascontiguousarray(2 * np.pi * k.ravel(), real) for k in (kx, ky))
    found = finufft.nufft2d3(
        np.ascontiguousarray(x, real), np.ascontiguousarray(y, real), np.ascontiguousarray(strengths, dtype),
        s, t, eps=1e-12 if precise else 1e-5, isign=-1, nthreads=1,
    )  # fmt: skip
    return np.asarray(found).reshape(len(strengths), *kx.shape)


def whole_circle(half: np.ndarray) -> np.ndarray:
    """Return transforms of real objects on all angles from those on the first half: (..., n, W)."""
    return np.concatenate([half, half.conj()], axis=-1)


def _low_rank(factors: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, r) and (r, atoms) whose product is the factors within a tolerance of their largest part."""
    distinct, place = np.unique(factors, axis=1, return_inverse=True)
    shells, sizes, atoms = np.linalg.svd(distinct, full_matrices=False)
    rank = max(1, int((sizes > tolerance * sizes[0]).sum()))
    return shells[:, :rank], (sizes[:rank, None] * atoms[:rank])[:, place.ravel()]


def _plan(kind: int, shape: tuple[int, ...], count: int, dtype: Any, sign: int = -1) -> Any:
    import finufft

    return finufft.Plan(kind, shape, n_trans=count, eps=TOLERANCE[dtype], isign=sign, dtype=dtype, nthreads=1)


def _points(dtype: Any, *coordinates: np.ndarray) -> list[np.ndarray]:
    real = np.float32 if dtype == np.complex64 else np.float64
    wrapped = (np.remainder(c.ravel() + np.pi, 2 * np.pi) - np.pi for c in coordinates)
    return [np.ascontiguousarray(c, real) for c in wrapped]


def _stacked(count: int, shape: tuple[int, int]) -> tuple[int, ...]:
    return shape if count == 1 else (count, *shape)
