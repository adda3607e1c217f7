"""From the tomogram's file to the filtered, extended volume of unit variance that tasks read."""

import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import zarr

from cryodask.errors import InputError
from cryodask.io.volume import read_region
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.filtering import Extension, filter_volume, inspect
from cryodask.jobs.tomogram_matching.noise_spectrum import describe_whitening, measure_whitening
from cryodask.optics.bandpass import BandPass
from cryodask.optics.contrast import PowerSums, contrasts_differ, power_sums
from cryodask.optics.template_filter import RadialWeight, Wedge
from cryodask.optics.tilt_sign import WedgePower, check_tilt_sign, volume_wedge_power
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter
from cryodask.optics.whitening import Whitening, cube_slices

MOST_CUBES = 32  # pieces of the tomogram that tell the sign of the tilt angles
NO_BAND = BandPass(lp_rad=math.inf)


@dataclass(frozen=True)
class TomogramFilter:
    """What the filtering of a tomogram depends on.

    Parameters
    ----------
    path, level
        The tomogram.
    shape
        (z, y, x) voxels.
    voxel_size
        Angstrom.
    box
        Edge of the template box: the unit of Fourier pixels.
    tilts, band, wedge
        The filter of section 3.4; none where not set.
    laplacian, whiten
        Whether frequencies are weighted by their square, and by the inverse amplitude of the noise.
    margin
        Voxels by which the data are extended at each face; 0 wraps around.
    label
        The tomogram in the user's words, for messages.
    memory
        Bytes to stay below.
    skewness
        Of the template in the band, whose sign is held against the tomogram's.
    other_contrast
        What `contrast` is to be set to where they differ.
    """

    path: str
    level: int
    shape: tuple[int, int, int]
    voxel_size: float
    box: int
    tilts: TiltSeries | None
    band: BandPass | None
    wedge: Wedge
    laplacian: bool
    whiten: bool
    margin: int
    label: str
    memory: float
    skewness: float = 0.0
    other_contrast: Literal["same", "inverted"] = "inverted"

    @property
    def axes(self) -> tuple[Extension, Extension, Extension]:
        """How each axis is extended."""
        z, y, x = (Extension(size, self.margin) for size in self.shape)
        return z, y, x

    @property
    def sampled(self) -> TiltSeries | None:
        """The series whose wedge is filtered; none where every frequency is kept."""
        return None if self.wedge == "none" else self.tilts


def prepare_tomogram(folder: Path, settings: TomogramFilter) -> None:
    """Filter the tomogram once into the run's constants; what is there already is kept.

    Raises
    ------
    InputError
        Where voxels are not finite or all equal, or the tilt angles look inverted.
    """
    if constants.is_prepared(folder):
        return

    def read(region: tuple[slice, ...]) -> np.ndarray:
        return read_region(settings.path, region, level=settings.level)

    statistics = inspect(read, settings.shape, settings.memory, settings.label)
    notices = _check_tilt_sign(read, settings)
    curve = _whitening(read, settings, folder) if settings.whiten else None
    scratch = folder / "spectrum.zarr"
    shutil.rmtree(scratch, ignore_errors=True)
    filtered = constants.create_array(
        constants.filtered_path(folder), tuple(axis.length for axis in settings.axes), "float32"
    )
    searched = _Variance(settings, folder)

    def write(rows: slice, slab: np.ndarray) -> None:
        filtered[rows] = slab
        searched.add(rows, slab)

    filter_volume(
        read,
        write,
        settings.axes,
        mean=statistics.mean,
        voxel_size=settings.voxel_size,
        spectrum_filter=SpectrumFilter(settings, radial_weights(settings.laplacian, curve)),
        memory=settings.memory,
        scratch=scratch,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    notices += _check_contrast(searched.sums, settings)
    found = {"scale": searched.scale, "notices": notices, **vars(statistics)}
    if curve is not None:
        found["whitening"] = describe_whitening(curve)
    constants.write_prepared(folder, found)


def radial_weights(laplacian: bool, curve: Whitening | None = None) -> tuple[RadialWeight, ...]:
    """Return the factors that tomogram and template share beside band and wedge."""
    return (*((np.square,) if laplacian else ()), *((curve,) if curve is not None else ()))


def _whitening(
    read: Callable[[tuple[slice, ...]], np.ndarray], settings: TomogramFilter, folder: Path
) -> Whitening:
    try:
        return measure_whitening(
            read,
            folder,
            shape=settings.shape,
            voxel_size=settings.voxel_size,
            box=settings.box,
            tilts=settings.sampled,
        )
    except InputError as error:
        raise InputError(f"{settings.label}: {error}") from None


class SpectrumFilter:
    """The filter of section 3.4 over slabs of the half spectrum."""

    def __init__(self, settings: TomogramFilter, weights: Sequence[RadialWeight]) -> None:
        self.settings, self.weights = settings, weights
        self.longest = max(settings.shape[0], settings.shape[2])

    def __call__(self, kz: np.ndarray, ky: np.ndarray, kx: np.ndarray) -> np.ndarray:
        """Return the factors at broadcastable frequencies, 1/angstrom."""
        settings = self.settings
        if settings.band is None and settings.sampled is None and not self.weights:
            return np.ones((1, 1, 1), np.float32)
        return tomogram_filter(
            kz,
            ky,
            kx,
            settings.box,
            settings.voxel_size,
            settings.tilts,
            settings.band or NO_BAND,
            wedge=settings.wedge,
            longest_edge=self.longest,
            radial_weights=self.weights,
        )


def _check_tilt_sign(read: Callable[[tuple[slice, ...]], np.ndarray], settings: TomogramFilter) -> list[str]:
    """Return what is doubtful about the sign of the tilt angles; raise where it is wrong."""
    if settings.sampled is None:
        return []
    limits = settings.sampled.angle_range
    nz, ny, nx = settings.shape
    cubes = cube_slices(((0, nz), (0, ny), (0, nx)), settings.box)
    chosen = np.unique(np.linspace(0, len(cubes) - 1, MOST_CUBES).round().astype(int))
    power = WedgePower()
    for number in chosen:
        cube = read(cubes[number])
        power += volume_wedge_power(cube, limits, settings.box, settings.voxel_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_tilt_sign(power.ratio, limits)
        except InputError as error:
            raise InputError(f"{settings.label}: {error}") from None
    return [str(warning.message) for warning in caught]


def _check_contrast(searched: PowerSums, settings: TomogramFilter) -> list[str]:
    """Return what is to be told where matter is dark in the tomogram and bright in the template."""
    if not contrasts_differ(searched, settings.skewness, box=settings.box, band=settings.band):
        return []
    return [
        f"the template's contrast looks opposite to the tomogram's (skewness {settings.skewness:.2f}, "
        f"of the tomogram {searched.skewness:.2f}), set contrast: {settings.other_contrast}"
    ]


class _Variance:
    """Gathers variance and skewness of the filtered tomogram over the searched voxels."""

    def __init__(self, settings: TomogramFilter, folder: Path) -> None:
        self.margin, self.shape = settings.margin, settings.shape
        path = constants.mask_path(folder)
        self.mask = zarr.open_array(path, mode="r") if path.exists() else None
        self.sums = PowerSums()

    def add(self, rows: slice, slab: np.ndarray) -> None:
        first, last = max(rows.start, self.margin), min(rows.stop, self.margin + self.shape[0])
        if first >= last:
            return
        inner = tuple(slice(self.margin, self.margin + size) for size in self.shape[1:])
        values = slab[(slice(first - rows.start, last - rows.start), *inner)]
        if self.mask is not None:
            selected = self.mask[first - self.margin : last - self.margin]
            values = values[np.asarray(selected).astype(bool)]
        self.sums += power_sums(values)

    @property
    def scale(self) -> float:
        variance = self.sums.variance
        return float(1.0 / np.sqrt(variance)) if variance > 0 else 0.0
