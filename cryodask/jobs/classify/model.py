"""The model of a classification: rings, basis, angles and filters that every pass and test shares."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import scipy.fft

from cryodask.arrays.npy import load_npz
from cryodask.kernels.polar import PolarGrid
from cryodask.kernels.polar_correlation import AngleTable
from cryodask.kernels.steerable import Basis
from cryodask.search.store import replacing

LEAST_NORM = 1e-6


def tangent_lowpass(frequency: np.ndarray, cutoff: float, falloff: float) -> np.ndarray:
    """Return the hyperbolic tangent low-pass: 1/2 at the cutoff, over the relative width `falloff`.

    Parameters
    ----------
    frequency : any shape, cycles per pixel
    cutoff, falloff : float
        FL or FH, and FF, of ISAC.
    """
    steepness = np.pi / (2 * falloff * cutoff)
    return 0.5 * (np.tanh(steepness * (frequency + cutoff)) - np.tanh(steepness * (frequency - cutoff)))


@dataclass(frozen=True)
class Model:
    """How images become coefficients, and class means references.

    Parameters
    ----------
    grid : PolarGrid
    basis : Basis
    table : AngleTable
    box : int
        Edge L of working images, pixels.
    falloff, cutoff : float
        Tangent low-pass of references, cycles per working pixel.
    bar : float
        Width of filaments, working pixels, which lie along x and move across alone; 0 for particles.
    """

    grid: PolarGrid
    basis: Basis
    table: AngleTable
    box: int
    cutoff: float
    falloff: float
    bar: float = 0.0

    @cached_property
    def radius_map(self) -> np.ndarray:
        """Distance of each pixel from voxel L//2, (L, L)."""
        axis = np.arange(self.box) - self.box // 2
        return np.hypot(axis[:, None], axis)

    @cached_property
    def inside(self) -> np.ndarray:
        """Pixels within the last ring, (L, L) bool."""
        return self.radius_map <= self.grid.last

    def reach(self, farthest: float) -> np.ndarray:
        """Return how far a centre may move along x and along y, (2,) pixels."""
        return np.array([0.0 if self.bar else farthest, farthest])

    def random_angles(self, uniform: np.ndarray) -> np.ndarray:
        """Return angles, radians, spread evenly over those that are searched, for numbers in [0, 1)."""
        if self.table.widest is None:
            return 2 * np.pi * uniform
        half = 2 * uniform % 1  # either way along the axis, and the angle about it
        return np.pi * (uniform >= 0.5) + (2 * half - 1) * self.table.widest * self.table.step

    def pictures(self, averages: np.ndarray, cutoff: float | None = None) -> np.ndarray:
        """Return class means (K, R, M) as pictures (K, L, L): low-passed, of mean 0 within R, 0 outside."""
        pictures = self.grid.images(averages, self.box)
        frequency = np.hypot(scipy.fft.fftfreq(self.box)[:, None], scipy.fft.rfftfreq(self.box))
        transfer = tangent_lowpass(frequency, cutoff or self.cutoff, self.falloff).astype(np.float32)
        pictures = scipy.fft.irfft2(scipy.fft.rfft2(pictures) * transfer, s=pictures.shape[1:])
        pictures -= pictures[:, self.inside].mean(axis=1)[:, None, None]
        return np.where(self.inside, pictures, 0).astype(np.float32)

    def references(
        self, averages: np.ndarray, offsets: np.ndarray, cutoff: float | None = None
    ) -> np.ndarray:
        """Return class means (K, R, M) about each offset (S, 2) as references (K, S, P) of unit norm."""
        count, shifts = len(averages), len(offsets)
        pictures = self.pictures(averages, cutoff)
        moved = np.stack(
            [self.grid.coefficients(pictures, np.tile(offset, (count, 1))) for offset in offsets]
        )
        weighted = self.weighted(moved.reshape(-1, *self.grid.shape))
        found = self.unit(weighted).reshape(shifts, count, -1)
        return np.ascontiguousarray(found.transpose(1, 0, 2))

    def weighted(self, coefficients: np.ndarray) -> np.ndarray:
        """Return ring coefficients (n, R, M) in the basis, times the Wiener weights."""
        return self.basis.project(coefficients) * self.basis.weights

    def unit(self, coefficients: np.ndarray) -> np.ndarray:
        """Return basis coefficients (n, P) divided by their norms."""
        norm = self.basis.norm(coefficients) + LEAST_NORM
        return (coefficients / norm[:, None]).astype(np.complex64)

    def write(self, path: Path) -> None:
        """Write the model to an npz file."""
        grid = self.grid
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                grid=[grid.first, grid.last, grid.step, grid.samples, grid.frequencies],
                starts=self.basis.starts,
                profiles=self.basis.profiles,
                weights=self.basis.weights,
                angles=[self.table.angles, -1 if self.table.widest is None else self.table.widest],
                bar=self.bar,
                box=self.box,
                filter=[self.cutoff, self.falloff],
            )


@lru_cache(maxsize=4)
def read_model(path: str) -> Model:
    """Read a model that `Model.write` wrote; a path is written once."""
    stored = load_npz(path)
    grid = PolarGrid(*(int(value) for value in stored["grid"]))
    basis = Basis(stored["starts"], stored["profiles"], stored["weights"])
    angles, widest = (int(value) for value in stored["angles"])
    table = AngleTable(angles, grid.frequencies, None if widest < 0 else widest)
    cutoff, falloff = (float(value) for value in stored["filter"])
    return Model(grid, basis, table, int(stored["box"]), cutoff, falloff, float(stored["bar"]))


def offset_grid(x_range: float, y_range: float, step: float) -> np.ndarray:
    """Return offsets (S, 2), x y, y slowest."""
    x = np.arange(-round(x_range / step), round(x_range / step) + 1) * step
    y = np.arange(-round(y_range / step), round(y_range / step) + 1) * step
    return np.array([(b, a) for a in y for b in x])


STILL = np.zeros((1, 2))
