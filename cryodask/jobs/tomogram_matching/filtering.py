"""The tomogram filter: once for the whole tomogram, before tiling, slab by slab in bounded memory.

The three-dimensional transform runs axis by axis: two-dimensional transforms of z slabs, then the z
transform, filter and inverse of y slabs, then the inverse of z slabs. What lies between is held in memory
where it fits and in scratch chunks where it does not.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import zarr

from cryodask.arrays.lengths import fast_even_length
from cryodask.errors import InputError

SLAB_SHARE = 8  # bytes of a slab, its transforms and temporaries, per byte of its voxels


@dataclass(frozen=True)
class Extension:
    """How an axis is extended beyond its data before filtering.

    Parameters
    ----------
    size
        Voxels of data.
    margin
        Voxels at each end filled by reflection under a cosine taper; 0 leaves the axis as it is.
    """

    size: int
    margin: int

    @property
    def length(self) -> int:
        """Length of the extended axis; without a margin the data's own."""
        return fast_even_length(self.size + 2 * self.margin) if self.margin else self.size

    def sources(self) -> np.ndarray:
        """Return the data index that each extended index shows; -1 for none."""
        index = np.arange(self.length) - self.margin
        folded = np.abs((index + self.size - 1) % (2 * max(self.size - 1, 1)) - (self.size - 1))
        beyond = (index < -self.margin) | (index >= self.size + self.margin)
        return np.where(beyond, -1, folded)

    def taper(self) -> np.ndarray:
        """Return the weight of each extended index, 1 over the data and falling to 0 at the margin's end."""
        if not self.margin:
            return np.ones(self.length, np.float32)
        index = np.arange(self.length) - self.margin
        outside = np.maximum(np.maximum(-index, index - (self.size - 1)), 0)
        reach = np.minimum(outside / (self.margin + 1), 1.0)
        return (0.5 * (1.0 + np.cos(np.pi * reach))).astype(np.float32)


@dataclass(frozen=True)
class InputStatistics:
    """What the first look at a tomogram finds."""

    mean: float
    minimum: float
    maximum: float


def inspect(
    read: Callable[[tuple[slice, ...]], np.ndarray], shape: tuple[int, int, int], memory: float, name: str
) -> InputStatistics:
    """Read a tomogram once; refuse it where voxels are not finite or all are equal."""
    total, low, high, bad, first = 0.0, np.inf, -np.inf, 0, None
    for rows in slabs(shape[0], shape[1] * shape[2], memory):
        slab = read((rows, slice(None), slice(None)))
        finite = np.isfinite(slab)
        if not finite.all():
            if first is None:
                place = np.unravel_index(int(np.argmin(finite)), slab.shape)
                first = (rows.start + int(place[0]), int(place[1]), int(place[2]))
            bad += int(slab.size - np.count_nonzero(finite))
            continue
        total += float(slab.sum(dtype=np.float64))
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
    if first is not None:
        at = ",".join(str(i) for i in first)
        raise InputError(f"{name}: {bad} non-finite voxels, first at (z,y,x) = ({at})")
    if low == high:
        raise InputError(f"{name}: tomogram is constant ({low:g} everywhere)")
    return InputStatistics(total / float(np.prod(shape)), low, high)


def filter_volume(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    write: Callable[[slice, np.ndarray], None],
    axes: tuple[Extension, Extension, Extension],
    *,
    mean: float,
    voxel_size: float,
    spectrum_filter: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    memory: float,
    scratch: Path,
) -> None:
    """Filter a volume of any size.

    Parameters
    ----------
    read
        Returns a region (z, y, x) of the data.
    write
        Takes z slabs of the filtered, extended volume, each once.
    axes
        Extension of z, y and x.
    mean
        Subtracted from the data before it is extended.
    voxel_size
        Angstrom.
    spectrum_filter
        Returns the factors at frequencies kz, ky, kx (1/angstrom); the zero frequency is set to 0 whatever
        it says.
    memory
        Bytes to stay below.
    scratch
        Folder for the half-done spectrum where it does not fit the memory.
    """
    nz, ny, nx = (axis.length for axis in axes)
    half = nx // 2 + 1
    spectrum = spectrum_storage((nz, ny, half), memory, scratch)
    share = memory / 2 if isinstance(spectrum, np.ndarray) else memory
    for rows in slabs(nz, ny * nx, share):
        slab = _extended_slab(read, axes, rows, mean)
        spectrum[rows] = scipy.fft.rfft2(slab, axes=(1, 2), workers=threads(), overwrite_x=True)
    kz, ky = scipy.fft.fftfreq(nz, voxel_size)[:, None, None], scipy.fft.fftfreq(ny, voxel_size)
    kx = scipy.fft.rfftfreq(nx, voxel_size)[None, None, :]
    for columns in slabs(ny, nz * half * 2, share):
        part = scipy.fft.fft(spectrum[:, columns], axis=0, workers=threads(), overwrite_x=True)
        part *= spectrum_filter(kz, ky[None, columns, None], kx)
        if columns.start == 0:
            part[0, 0, 0] = 0
        spectrum[:, columns] = scipy.fft.ifft(part, axis=0, workers=threads(), overwrite_x=True)
    for rows in slabs(nz, ny * nx, share):
        write(rows, scipy.fft.irfft2(spectrum[rows], s=(ny, nx), axes=(1, 2), workers=threads()))


def spectrum_storage(shape: tuple[int, int, int], memory: float, scratch: Path) -> Any:
    """Return room for a half-done spectrum: in memory where half of that suffices, else on the disk."""
    if 8 * np.prod(shape) <= memory / 2:
        return np.empty(shape, np.complex64)
    chunks = (min(32, shape[0]), min(32, shape[1]), shape[2])
    return zarr.create_array(scratch, shape=shape, chunks=chunks, dtype="complex64", compressors=None)


def _extended_slab(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    axes: tuple[Extension, Extension, Extension],
    rows: slice,
    mean: float,
) -> np.ndarray:
    z, y, x = (axis.sources() for axis in axes)
    z = z[rows]
    slab = np.zeros((len(z), len(y), len(x)), np.float32)
    known = z[z >= 0]
    if known.size:
        first = int(known.min())
        data = read((slice(first, int(known.max()) + 1), slice(None), slice(None))) - np.float32(mean)
        inside = np.ix_(z >= 0, y >= 0, x >= 0)
        slab[inside] = data[np.ix_(known - first, y[y >= 0], x[x >= 0])]
    weights = [axis.taper() for axis in axes]
    slab *= weights[0][rows][:, None, None]
    slab *= weights[1][:, None] * weights[2]
    return slab


def slabs(length: int, row_voxels: int, memory: float) -> Iterator[slice]:
    """Cut an axis into slabs whose working set stays within the memory, multiples of the scratch chunks."""
    rows = int(memory / (4.0 * SLAB_SHARE * row_voxels))
    rows = length if rows >= length else max(1, rows // 32 * 32 if rows >= 32 else rows)
    for first in range(0, length, rows):
        yield slice(first, min(first + rows, length))


def threads() -> int:
    """Return how many threads a transform may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
