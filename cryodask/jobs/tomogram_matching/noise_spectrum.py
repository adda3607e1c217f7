"""The noise spectrum of the searched region: measured before the tomogram is filtered, read by its tasks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cryodask.jobs.tomogram_matching import constants
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.whitening import (
    CubePower,
    NoiseSpectrum,
    Whitening,
    cube_power,
    cube_slices,
    noise_spectrum,
    whitening,
)


def measure_whitening(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    folder: Path,
    *,
    shape: tuple[int, int, int],
    voxel_size: float,
    box: int,
    tilts: TiltSeries | None,
) -> Whitening:
    """Measure the filter that flattens a tomogram; parameters and errors of `measure_noise`."""
    cubes, powers = _measure(read, folder, shape, voxel_size, box, tilts)
    return whitening(powers, voxel_size, _longest_edge(cubes))


def measure_noise(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    folder: Path,
    *,
    shape: tuple[int, int, int],
    voxel_size: float,
    box: int,
    tilts: TiltSeries | None,
) -> NoiseSpectrum:
    """Measure the spectrum of a tomogram, in cubes of which most is searched where there are such.

    Parameters
    ----------
    read
        Returns a region (z, y, x) of the tomogram.
    folder
        The run's constants, with the search mask if there is one.
    shape
        (z, y, x) voxels.
    voxel_size
        Angstrom.
    box
        Edge of the template box, voxels.
    tilts
        The series whose wedge is sampled; None for all frequencies.

    Raises
    ------
    InputError
        There is no signal to measure.
    """
    cubes, powers = _measure(read, folder, shape, voxel_size, box, tilts)
    return noise_spectrum(powers, voxel_size, _longest_edge(cubes))


def _measure(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    folder: Path,
    shape: tuple[int, int, int],
    voxel_size: float,
    box: int,
    tilts: TiltSeries | None,
) -> tuple[list[tuple[slice, slice, slice]], list[CubePower]]:
    path = constants.mask_path(folder)
    mask: Any = zarr.open_array(path, mode="r") if path.exists() else None
    z, y, x = ((0, size) for size in shape) if mask is None else _searched_region(mask)
    cubes = cube_slices((z, y, x), box)
    if mask is not None:
        cubes = [cube for cube in cubes if np.mean(mask[cube]) > 0.5] or cubes
    return cubes, [cube_power(read(cube), voxel_size, tilts, box) for cube in cubes]


def _longest_edge(cubes: list[tuple[slice, slice, slice]]) -> int:
    return max(side.stop - side.start for side in cubes[0])


def _searched_region(mask: Any) -> list[tuple[int, int]]:
    """Return the first and one past the last searched voxel along (z, y, x), read slab by slab."""
    hit = [np.zeros(size, bool) for size in mask.shape]
    for first in range(0, mask.shape[0], constants.CHUNK):
        slab = np.asarray(mask[first : first + constants.CHUNK]).astype(bool)
        hit[0][first : first + len(slab)] = slab.any(axis=(1, 2))
        hit[1] |= slab.any(axis=(0, 2))
        hit[2] |= slab.any(axis=(0, 1))
    return [(int(np.argmax(axis)), len(axis) - int(np.argmax(axis[::-1]))) for axis in hit]


def describe_whitening(curve: Whitening) -> dict[str, Any]:
    """Return a whitening as plain numbers."""
    return vars(curve) | {"shells": curve.shells.tolist()}


def whitening_from(stored: Mapping[str, Any]) -> Whitening:
    """Make a whitening again from what `describe_whitening` returned."""
    return Whitening(**{**stored, "shells": np.array(stored["shells"])})


def read_whitening(folder: str) -> Whitening | None:
    """Read the whitening that a run's tomogram was filtered with; None where it was not whitened."""
    stored = constants.read_prepared(folder).get("whitening")
    return None if stored is None else whitening_from(stored)
