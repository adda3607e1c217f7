"""The filtered tomogram on the coarse grid, slab by slab in bounded memory."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import zarr

from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.filtering import slabs, spectrum_storage, threads
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.optics.fourier_crop import crop_axis
from cryodask.optics.template_filter import RadialWeight


def crop_tomogram(
    folder: Path,
    coarse_folder: Path,
    grid: SearchGrid,
    *,
    memory: float,
    voxel_size: float,
    weight: RadialWeight | None = None,
) -> None:
    """Write the filtered tomogram on the coarse grid; what is there already is kept.

    Parameters
    ----------
    folder
        Constants with the filtered tomogram.
    coarse_folder
        Constants of the coarse search.
    grid
        The coarse grid.
    memory
        Bytes to stay below.
    voxel_size
        Angstrom, of the full grid.
    weight
        Further factor, a function of the frequency in 1/angstrom.
    """
    if constants.is_prepared(coarse_folder):
        return
    coarse_folder.mkdir(parents=True, exist_ok=True)
    source: Any = zarr.open_array(constants.filtered_path(folder), mode="r")
    target = constants.create_array(constants.filtered_path(coarse_folder), grid.coarse_lengths, "float32")
    scratch = coarse_folder / "spectrum.zarr"
    shutil.rmtree(scratch, ignore_errors=True)
    spectrum = spectrum_storage(_stored_shape(grid), memory, scratch)
    share = memory / 2 if isinstance(spectrum, np.ndarray) else memory
    _transform(source, spectrum, grid, share)
    _crop_depth(spectrum, grid, share, voxel_size, weight)
    _transform_back(spectrum, target, grid, share)
    shutil.rmtree(scratch, ignore_errors=True)
    constants.write_prepared(coarse_folder, constants.read_prepared(str(folder)))


def _stored_shape(grid: SearchGrid) -> tuple[int, int, int]:
    """Return the shape of the spectrum that is already cropped along y and x."""
    return grid.padded_lengths[0], grid.coarse_lengths[1], grid.coarse_lengths[2] // 2 + 1


def _transform(source: Any, spectrum: Any, grid: SearchGrid, share: float) -> None:
    """Transform z slabs along y and x and keep what the coarse grid holds."""
    nz, ny, nx = grid.padded_lengths
    _, height, width = grid.coarse_lengths
    before = grid.before
    half = width // 2 + 1
    for rows in slabs(nz, ny * nx, share):
        slab = np.zeros((rows.stop - rows.start, ny, nx), np.float32)
        first, last = max(rows.start, before), min(rows.stop, before + source.shape[0])
        if first < last:
            z = slice(first - rows.start, last - rows.start)
            inner = slice(before, before + source.shape[1]), slice(before, before + source.shape[2])
            slab[(z, *inner)] = source[first - before : last - before]
        transformed = scipy.fft.rfft2(slab, axes=(1, 2), workers=threads(), overwrite_x=True)[:, :, :half]
        if width % 2 == 0:
            transformed[:, :, -1] = 0
        spectrum[rows] = crop_axis(transformed, height, 1)


def _crop_depth(
    spectrum: Any, grid: SearchGrid, share: float, voxel_size: float, weight: RadialWeight | None
) -> None:
    """Crop the spectrum along z; its first planes take what is left."""
    nz, height, half = _stored_shape(grid)
    depth, _, width = grid.coarse_lengths
    spacing = voxel_size / float(grid.factor)
    kz = scipy.fft.fftfreq(depth, spacing)[:, None, None]
    ky, kx = scipy.fft.fftfreq(height, spacing), scipy.fft.rfftfreq(width, spacing)
    for columns in slabs(height, nz * half * 2, share):
        part = scipy.fft.fft(spectrum[:, columns], axis=0, workers=threads(), overwrite_x=True)
        part = crop_axis(part, depth, 0)
        if weight is not None:
            part = part * weight(np.sqrt(kz**2 + ky[None, columns, None] ** 2 + kx**2)).astype(np.float32)
        part = scipy.fft.ifft(part, axis=0, workers=threads(), overwrite_x=True)
        spectrum[:depth, columns] = part * np.float32(float(grid.factor) ** 3)


def _transform_back(spectrum: Any, target: Any, grid: SearchGrid, share: float) -> None:
    depth, height, width = grid.coarse_lengths
    for rows in slabs(depth, height * width, share):
        slab = scipy.fft.irfft2(spectrum[rows], s=(height, width), axes=(1, 2), workers=threads())
        target[rows] = slab
