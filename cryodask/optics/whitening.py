"""Whitening: the noise spectrum of a tomogram, measured in cubes, and the filter that flattens it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryodask.errors import InputError
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.periodogram import hann_power
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.wedge import filled_wedge

_LEAST_EDGE = 64
_MOST_CUBES = 2000
_TAPER_START = 0.9

Region = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Whitening:
    """A whitening factor over the frequency, to be multiplied onto tomogram and template filters.

    Parameters
    ----------
    shells
        (S,) factor at whole multiples of `spacing`, greatest 1.
    spacing
        1/angstrom.
    nyquist
        1/angstrom; from 0.9 of it the factor falls to 0 as a cosine.
    """

    shells: np.ndarray
    spacing: float
    nyquist: float

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        """Return the factor at frequencies (any shape, 1/angstrom)."""
        f = np.asarray(frequency, dtype=np.float64)
        factor = np.interp(f, self.spacing * np.arange(len(self.shells)), self.shells)
        return factor * _taper(f / self.nyquist)


@dataclass(frozen=True)
class CubePower:
    """What one cube adds to the noise spectrum: its variance, and its mean power in each shell."""

    variance: float
    shells: np.ndarray


def cube_slices(region: Region, box: int) -> list[tuple[slice, slice, slice]]:
    """Return the cubes in which the noise spectrum is measured.

    Parameters
    ----------
    region
        First and one past the last voxel searched, along (z, y, x).
    box
        Edge of the template box, voxels. Cubes have an edge of max(2 box, 64), or the region's where that is
        shorter, and lie half an edge apart; of more than 2000, 2000 are chosen evenly.
    """
    starts, edges = [], []
    for low, high in region:
        edge = min(max(2 * box, _LEAST_EDGE), high - low)
        starts.append(range(low, high - edge + 1, max(1, edge // 2)))
        edges.append(edge)
    corners = list(itertools.product(*starts))
    if len(corners) > _MOST_CUBES:
        corners = [corners[i] for i in np.linspace(0, len(corners) - 1, _MOST_CUBES).round().astype(int)]
    return [(slice(z, z + edges[0]), slice(y, y + edges[1]), slice(x, x + edges[2])) for z, y, x in corners]


def cube_power(cube: np.ndarray, voxel_size: float, tilts: TiltSeries | None, box: int) -> CubePower:
    """Return the power of one cube, its mean removed, under a Hann window, in shells of the sampled region.

    Parameters
    ----------
    cube
        (z, y, x).
    voxel_size
        Angstrom.
    tilts
        The series, whose filled wedge is the sampled region; None for all frequencies.
    box
        Edge of the template box, voxels.
    """
    power = hann_power(cube)
    shell, weight = _shells_and_weights(cube.shape, voxel_size, tilts, box)
    total = np.bincount(shell, weight * power.ravel())
    count = np.bincount(shell, weight)
    n_shells = max(cube.shape) // 2 + 1
    means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return CubePower(float(cube.var(dtype=np.float64)), means[:n_shells])


@dataclass(frozen=True, eq=False)
class NoiseSpectrum:
    """The mean power of calm cubes over the frequency.

    Parameters
    ----------
    shells
        (S,) power at whole multiples of `spacing`, on any scale.
    spacing
        1/angstrom.
    """

    shells: np.ndarray
    spacing: float

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        """Return the power at frequencies (any shape, 1/angstrom); the last shell's beyond it."""
        f = np.asarray(frequency, dtype=np.float64)
        return np.asarray(np.interp(f, self.spacing * np.arange(len(self.shells)), self.shells))


def noise_spectrum(cubes: Sequence[CubePower], voxel_size: float, longest_edge: int) -> NoiseSpectrum:
    """Return the mean spectrum of cubes.

    Parameters
    ----------
    cubes
        The power of each; the tenth with the highest variance (gold, ice, edges) is left out.
    voxel_size
        Angstrom.
    longest_edge
        Of a cube, voxels.

    Raises
    ------
    InputError
        There are no cubes, or they hold no signal.
    """
    calmest = sorted(cubes, key=lambda cube: cube.variance)[: len(cubes) - len(cubes) // 10]
    power = np.mean([cube.shells for cube in calmest], axis=0) if calmest else np.zeros(1)
    if not power[1:].any():
        raise InputError("the searched region has no signal to measure a spectrum on")
    return NoiseSpectrum(power, 1.0 / (longest_edge * voxel_size))


def whitening(cubes: Sequence[CubePower], voxel_size: float, longest_edge: int) -> Whitening:
    """Return the filter that flattens the spectrum of cubes; parameters and errors of `noise_spectrum`."""
    noise = noise_spectrum(cubes, voxel_size, longest_edge)
    power = noise.shells
    factor = np.zeros_like(power)
    measured = power > 0
    measured[0] = False
    factor[measured] = 1.0 / np.sqrt(power[measured])
    spacing, nyquist = noise.spacing, 0.5 / voxel_size
    greatest = (factor * _taper(spacing / nyquist * np.arange(len(factor)))).max()
    return Whitening(factor / greatest, spacing, nyquist)


def _shells_and_weights(
    shape: tuple[int, ...], voxel_size: float, tilts: TiltSeries | None, box: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every entry of a cube's half spectrum, its shell and how often it counts."""
    kz, ky, kx = half_frequencies((shape[0], shape[1], shape[2]), voxel_size)
    shell = np.rint(np.sqrt(kz**2 + ky**2 + kx**2) * (max(shape) * voxel_size)).astype(np.intp)
    weight = np.full(shell.shape, 2.0)
    # these columns hold both members of each conjugate pair
    weight[:, :, 0] = 1.0
    if shape[2] % 2 == 0:
        weight[:, :, -1] = 1.0
    if tilts is not None:
        weight *= filled_wedge(kz, ky, kx, tilts.angle_range, box, voxel_size)
    return shell.ravel(), weight.ravel()


def _taper(fraction_of_nyquist: np.ndarray) -> np.ndarray:
    fall = np.clip((fraction_of_nyquist - _TAPER_START) / (1.0 - _TAPER_START), 0.0, 1.0)
    return 0.5 + 0.5 * np.cos(math.pi * fall)
