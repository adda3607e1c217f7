"""How likely a particle at the threshold of a search is missed by a coarser first stage.

Both stages correlate the same data with one template, so their scores of one particle are jointly normal:
given the fine score s_f, the coarse one has mean κ s_f and variance σ_c² + κ²σ_f² - 2κc. Everything here is
inner products of weights in the spectrum of the template box, under the noise power of the filtered tomogram.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from cryodask.geometry.neighbours import RowFinder
from cryodask.jobs.miss_model import MissModel
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.preparation import SpectrumFilter, TomogramFilter, radial_weights
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.kernels.rotation import Interpolation, rotate, rotate_mask
from cryodask.kernels.template import Normalization, filter_template, normalise, normalization_mask
from cryodask.optics.fourier_crop import crop_half_spectrum
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.whitening import NoiseSpectrum, Whitening

DRAWS = 64
NEAREST = 4
DRAW_STREAM = 13
# particles and tomograms of any size: voxels among which a draw falls
PLACES = 2**20


@dataclass(frozen=True, eq=False)
class Stage:
    """A template as one stage of a search scores it, in its own box.

    A coarser grid of factor s has s·n' voxels, n' the fine box with the zeros around it that make s·n' whole.

    Parameters
    ----------
    coefficients
        (b + 2p)^3 from `rotation_coefficients`.
    mask
        (b, b, b).
    mask_coefficients
        Those of a mask that is rotated with the template; None for a spherical one.
    matrices
        (row, 3, 3) rotations of the stage.
    template_filter
        (b, b, b//2 + 1) or None.
    data_filter
        (b, b, b//2 + 1): what this stage's tomogram is filtered with beyond the fine stage's (the extra
        low-pass); None for nothing.
    factor
        s, voxels of this grid in one of the full grid, along an axis.
    """

    coefficients: np.ndarray
    mask: np.ndarray
    matrices: np.ndarray
    mask_coefficients: np.ndarray | None = None
    template_filter: np.ndarray | None = None
    data_filter: np.ndarray | None = None
    interpolation: Interpolation = "cubic"
    normalization: Normalization = "weighted"
    factor: float = 1.0

    @property
    def box(self) -> int:
        """Edge of the box, voxels."""
        return self.mask.shape[0]

    @property
    def full_box(self) -> int:
        """Edge of the same box on the full grid, voxels."""
        return round(self.box / self.factor)

    def mask_of(self, row: int) -> np.ndarray:
        """Return the mask (b, b, b) of one rotation."""
        mask = self.mask
        if self.mask_coefficients is not None:
            mask = rotate_mask(self.mask_coefficients, self.matrices[row])
        return np.asarray(normalization_mask(mask, self.normalization))

    def template_of(self, row: int) -> np.ndarray:
        """Return the rotated, filtered template (b, b, b)."""
        rotated = rotate(self.coefficients, self.matrices[row], self.interpolation)
        return np.asarray(
            rotated if self.template_filter is None else filter_template(rotated, self.template_filter)
        )

    def weights(self, row: int) -> np.ndarray:
        """Return u/N (b, b, b): its sum with data of unit variance is the score."""
        u, count = normalise(self.template_of(row), self.mask_of(row), normalization=self.normalization)
        return np.asarray(u / float(count))


def stage_of(
    problem: TomogramProblem, tables: Tables, *, data_filter: np.ndarray | None = None, factor: float = 1.0
) -> Stage:
    """Return a problem's template as a stage.

    Parameters
    ----------
    problem
        Of the full or of a coarser grid.
    tables
        Its tables, `template_filters` those of one cell (`TomogramProblem.template_filter`).
    data_filter, factor
        See `Stage`.
    """
    filters = tables.template_filters
    return Stage(
        coefficients=tables.templates[0],
        mask=tables.mask,
        matrices=tables.matrices,
        mask_coefficients=None if problem.mask_kind == "spherical" else tables.mask_coefficients,
        template_filter=None if filters is None else filters[0],
        data_filter=data_filter,
        interpolation=problem.interpolation,
        normalization=problem.normalization,
        factor=factor,
    )


def miss_models(
    fine: Stage,
    coarse: Sequence[Stage],
    noise_power: Callable[[int], np.ndarray],
    *,
    symmetry: str = "C1",
    seed: int = 0,
    draws: int = DRAWS,
) -> list[MissModel]:
    """Return what each of some coarse stages sees of randomly drawn particles.

    A draw is a row of the fine list and a voxel of the full grid. Its coarse score is that of the best of the
    four nearest coarse rows at the nearest coarse voxel. Draws depend on the seed and the fine list alone.

    Parameters
    ----------
    fine
        The full search.
    coarse
        The first stages to judge.
    noise_power
        Returns, for the edge n of a box, the power (n, n, n//2 + 1) of the tomogram as the fine stage filters
        it, on any scale.
    symmetry
        Point group of the template.
    seed
        Of the run.
    draws
        How many.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, DRAW_STREAM])))
    rows = generator.integers(0, len(fine.matrices), draws)
    places = generator.integers(0, PLACES, (draws, 3))
    nearest = [_nearest(stage.matrices, fine.matrices[rows], symmetry) for stage in coarse]
    powers = {box: unit_power(noise_power(box)) for box in {stage.full_box for stage in coarse}}
    views = [_CoarseView(stage, powers[stage.full_box]) for stage in coarse]
    measured: list[list[tuple[float, ...]]] = [[] for _ in coarse]
    for draw, row in enumerate(rows):
        particle = _Particle(fine, int(row))
        seen = {box: (particle.spectra(box), particle.alone(box, power)) for box, power in powers.items()}
        for number, stage in enumerate(coarse):
            spectra, alone = seen[stage.full_box]
            best = views[number].best(nearest[number][draw], places[draw], *spectra)
            measured[number].append(alone + best)
    return [MissModel(*np.array(each).T) for each in measured]


def filtered_power(
    settings: TomogramFilter, noise: NoiseSpectrum, curve: Whitening | None
) -> Callable[[int], np.ndarray]:
    """Return the `noise_power` of `miss_models`: noise of a tomogram under the filter of its search.

    Parameters
    ----------
    settings
        The filter of the fine stage.
    noise
        Spectrum of the tomogram as it was read.
    curve
        The whitening of the search; None for none.
    """
    weights = SpectrumFilter(settings, radial_weights(settings.laplacian, curve))

    def power(box: int) -> np.ndarray:
        kz, ky, kx = half_frequencies((box, box, box), settings.voxel_size)
        found = noise(np.sqrt(kz**2 + ky**2 + kx**2)) * np.square(weights(kz, ky, kx), dtype=np.float64)
        # the filtered tomogram has no mean
        found[0, 0, 0] = 0.0
        return found

    return power


def unit_power(power: np.ndarray) -> np.ndarray:
    """Return a power over the half spectrum (n, n, n//2 + 1), scaled to that of data of unit variance."""
    box = power.shape[0]
    found = np.asarray(power, dtype=np.float64)
    return found * (box**3 / float((found * _pairs(box)).sum()))


def _nearest(coarse: np.ndarray, poses: np.ndarray, symmetry: str) -> np.ndarray:
    finder = RowFinder(Rotation.from_matrix(coarse), symmetry)
    return finder.nearest(Rotation.from_matrix(poses), NEAREST)[1]


class _Particle:
    """A particle as one row of the fine list shows it: the rotated, filtered template of the fine stage."""

    def __init__(self, fine: Stage, row: int) -> None:
        self.signal, self.weights = fine.template_of(row), fine.weights(row)
        self.power = _masked_variance(self.signal, fine.mask_of(row))

    def spectra(self, box: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the half spectra of signal and fine weights with zeros around them."""
        return _spectrum(self.signal, box), _spectrum(self.weights, box)

    def alone(self, box: int, noise: np.ndarray) -> tuple[float, float, float]:
        """Return what the fine stage sees of it: signal, signal's variance, noise variance."""
        signal, weights = self.spectra(box)
        return _inner(weights, signal, box), self.power, _inner(weights, weights * noise, box)


class _CoarseView:
    """How a coarse stage sees data of the fine one: low-passed, cropped and scaled to unit variance."""

    def __init__(self, stage: Stage, noise: np.ndarray) -> None:
        self.stage, self.box, self.share = stage, stage.box, (stage.box / stage.full_box) ** 3
        kept = np.ones(_half_shape(self.box)) if stage.data_filter is None else stage.data_filter
        self.noise = _cropped(noise, self.box)
        variance = float((self.noise * np.square(kept) * _pairs(self.box)).sum()) / stage.full_box**3
        self.gain = kept / math.sqrt(variance)

    def best(
        self, rows: np.ndarray, place: np.ndarray, signal: np.ndarray, fine: np.ndarray
    ) -> tuple[float, float, float, float]:
        """Return signal, signal's variance, noise variance and covariance of the best of some rows."""
        exact = place * self.stage.factor
        shift = _phases(np.rint(exact) - exact, self.box)
        data = _cropped(signal, self.box) * self.gain * shift
        weights = [_spectrum(self.stage.weights(int(row)), self.box) for row in rows]
        signals = [self._inner(each, data) for each in weights]
        best = int(np.argmax(signals))
        # spectra of the full grid's box, transformed back on fewer voxels
        values = scipy.fft.irfftn(data, (self.box,) * 3) * self.share
        power = _masked_variance(values, self.stage.mask_of(int(rows[best])))
        seen = weights[best] * self.gain
        variance = self._inner(seen, seen * self.noise)
        covariance = self._inner(seen, _cropped(fine, self.box) * shift * self.noise)
        return signals[best], power, variance, covariance

    def _inner(self, a: np.ndarray, b: np.ndarray) -> float:
        return _inner(a, b, self.box) * self.share


def _spectrum(volume: np.ndarray, box: int) -> np.ndarray:
    """Return the half spectrum of a cube in a larger box, its centre voxel in the middle of that."""
    n = volume.shape[0]
    before = box // 2 - n // 2
    padded = np.pad(volume.astype(np.float64), (before, box - n - before))
    return np.asarray(scipy.fft.rfftn(padded))


def _inner(a: np.ndarray, b: np.ndarray, box: int) -> float:
    """Return Σ conj(a) b over the whole spectrum of a box, by its voxels."""
    return float(np.sum((a.conj() * b).real * _pairs(box))) / box**3


def _pairs(box: int) -> np.ndarray:
    """Return how many entries of the whole spectrum each column of the half spectrum stands for."""
    pairs = np.full(box // 2 + 1, 2.0)
    pairs[0] = 1.0
    if box % 2 == 0:
        pairs[-1] = 1.0
    return pairs


def _half_shape(box: int) -> tuple[int, int, int]:
    return box, box, box // 2 + 1


def _phases(offset: np.ndarray, box: int) -> np.ndarray:
    """Return the factors that show data at an offset (z, y, x) from a voxel, voxels of the box."""
    full, half = scipy.fft.fftfreq(box), scipy.fft.rfftfreq(box)
    z, y, x = (np.exp(2j * np.pi * k * d) for k, d in zip((full, full, half), offset, strict=True))
    return z[:, None, None] * y[:, None] * x


def _cropped(spectrum: np.ndarray, size: int) -> np.ndarray:
    """Return what a coarser grid holds of a half spectrum; its Nyquist frequency is 0."""
    return spectrum if size == spectrum.shape[0] else crop_half_spectrum(spectrum, size)


def _masked_variance(volume: Any, mask: Any) -> float:
    weights = mask / mask.sum(dtype=np.float64)
    return float((weights * volume * volume).sum() - (weights * volume).sum() ** 2)
