"""The correlation of `polar_correlation` in whole-array operations, for NumPy and CuPy arrays.

The same codes come back, in the same order of ties; scores agree to rounding.
"""

from typing import Any

import numpy as np

from cryodask.arrays.module import array_module, to_numpy
from cryodask.kernels.polar_correlation import MIRRORED, NEGATIVE, OFFSET, AngleTable
from cryodask.kernels.steerable import Basis

COLUMNS = 6000  # image x reference x offset at once on a CPU: what stays in its cache
SHARE = 0.9  # of a device's free memory that a batch may take, by default


def correlate_arrays(
    images: Any, references: Any, basis: Basis, table: AngleTable, *, columns: int = COLUMNS
) -> tuple[np.ndarray, np.ndarray]:
    """Score images against references over angle, mirror and offset.

    Parameters
    ----------
    images : (n, P) complex64
        NumPy or CuPy; where it lies is where the work is done.
    references : (K, S, P) complex64
        Of unit norm, about each of S offsets, in the same memory.
    basis : Basis
    table : AngleTable
    columns : int
        Most image x reference x offset at once.

    Returns
    -------
    score : (n, K) float32
    code : (n, K) int32
        As of `polar_correlation.correlate`, on the host.
    """
    count, shifts, _ = references.shape
    length = max(1, columns // (count * shifts))
    parts = [
        _best(images[start : start + length], references, basis, table)
        for start in range(0, len(images), length)
    ]
    score, code = (np.concatenate([to_numpy(each) for each in column]) for column in zip(*parts, strict=True))
    return score, code


def correlate_on_device(
    images: np.ndarray, references: np.ndarray, basis: Basis, table: AngleTable, *, memory: float = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Score host arrays on the CUDA device of this process; otherwise as `correlate_arrays`.

    Parameters
    ----------
    memory : float
        Share of the free device memory that a batch may take, or bytes where above 1.
    """
    import cupy

    free = cupy.cuda.Device().mem_info[0]
    columns = int(memory * free if memory <= 1 else memory) // column_bytes(table)
    moved = cupy.asarray(images), cupy.asarray(references)
    return correlate_arrays(*moved, basis, table, columns=columns)


def column_bytes(table: AngleTable) -> int:
    """Return the bytes that one image x reference x offset takes while it is scored."""
    scanned = len(_scanned(table))
    return 4 * (4 * table.frequencies + 8 * scanned)


def _scanned(table: AngleTable) -> np.ndarray:
    """Return the angle indices of the half circle in the order that settles ties."""
    first = np.arange(table.waves.shape[1])
    return np.stack([first, table.angles // 2 - first], axis=1).ravel()


def _best(images: Any, references: Any, basis: Basis, table: AngleTable) -> tuple[Any, Any]:
    xp = array_module(images)
    count, shifts, size = references.shape
    index = _scanned(table)
    k = np.where(np.arange(table.frequencies) == 0, 1.0, 2.0)
    phase = np.outer(index, np.arange(table.frequencies)) * table.step
    even, odd = (xp.asarray((wave(phase) * k).astype(np.float32)) for wave in (np.cos, np.sin))
    flat = references.reshape(count * shifts, size).conj()
    shape = (len(images), count, shifts)
    found = []
    for mirror in (0, 1):
        x = images.conj() if mirror else images
        spectra = xp.stack(
            [
                x[:, a:b] @ flat[:, a:b].T
                for a, b in zip(basis.starts[:-1].tolist(), basis.starts[1:].tolist(), strict=True)
            ]
        ).reshape(table.frequencies, -1)
        e, o = even @ spectra.real, odd @ spectra.imag
        values = e + xp.abs(o)
        place = values.argmax(axis=0)
        column = xp.arange(values.shape[1])
        code = xp.asarray(index)[place] + xp.where(o[place, column] > 0, NEGATIVE, 0) + mirror * MIRRORED
        found.append((values[place, column].reshape(shape), code.reshape(shape)))
    (straight, first), (mirrored, second) = found
    value = xp.where(mirrored > straight, mirrored, straight)
    code = xp.where(mirrored > straight, second, first) + OFFSET * xp.arange(shifts)
    best = value.argmax(axis=2)[..., None]
    taken = [xp.take_along_axis(each, best, axis=2)[..., 0] for each in (value, code)]
    return taken[0].astype(xp.float32), taken[1].astype(xp.int32)
