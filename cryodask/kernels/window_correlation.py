"""Scores of projections at few places: the windows of an image are transformed once, the rest is one product.

Where a search looks at a particle's own box alone there are few shifts and very many projections. The score
sum_u x(s + u) t(u) is, by Parseval, a product of the window's spectrum at s with the projection's, and so are
the mean of the projection's border and its energy: no projection goes back to real space.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.fft_library import fft_library

# Rows of one matrix product. Fixed, so that a score has the same bits whatever else is scored with it.
ROWS = 32


@dataclass(frozen=True)
class Normalization:
    """How a projection less the mean of its border is scaled; unit energy by default.

    Parameters
    ----------
    mean_share, outside
        Leopard-EM 1.2 also subtracts the mean over a padded image, (n^2/N)^2 of that of the projection, and
        counts it in so many pixels outside.
    factor
        Applied to the score.
    """

    mean_share: float = 0.0
    outside: float = 0.0
    factor: float = 1.0

    @classmethod
    def leopard_em(cls, template: int, box: int) -> "Normalization":
        """Return that of Leopard-EM 1.2 for the edges of template and box, pixels."""
        share = (template / box) ** 4
        return cls(share, float((box - template) ** 2), box / (box + 1.0))


UNIT_ENERGY = Normalization()


@dataclass(frozen=True, eq=False)
class WindowSet:
    """Windows of one image, ready for the product with slices.

    Parameters
    ----------
    columns
        (2K, J (S + 1)) float32: of each filter the spectra of all windows, then that of the border's mean;
        the half plane as real and imaginary parts, weights of Parseval included.
    energies
        (K + 4n, J) float32: the share of each feature of a slice (see `_features`) in a projection's energy.
    sums
        (S,) float32, the sum over each window.
    """

    columns: Any
    energies: Any
    sums: Any


def window_set(windows: Any, filters: Any) -> WindowSet:
    """Transform windows and join them with the filters of the projections.

    Parameters
    ----------
    windows
        (S, n, n) float32: pieces of the filtered image at S shifts.
    filters
        (J, n, n//2 + 1): CTF times filters of the template, real or complex.
    """
    xp = array_module(windows)
    count, n = windows.shape[:2]
    images = xp.concatenate([windows, xp.asarray(_border(n))[None]])
    spectra = fft_library(xp).rfft2(images, axes=(-2, -1))
    weight = np.full((n, n // 2 + 1), 2.0 / n**2)
    weight[:, [0, -1]] /= 2.0
    # projections have their centre at index 0, windows at n/2; particles are dark
    sign = -((-1.0) ** np.add.outer(np.arange(n), np.arange(n // 2 + 1)))
    spectra = spectra * xp.asarray(weight * sign, dtype=xp.float32)
    joined = (xp.conj(filters)[:, None] * spectra[None]).astype(xp.complex64)
    columns = joined.reshape(len(filters) * (count + 1), -1).view(xp.float32).T
    sums = windows.sum(axis=(-2, -1), dtype=xp.float64).astype(xp.float32)
    return WindowSet(xp.ascontiguousarray(columns), _energies(filters, weight, xp), sums)


def window_scores(
    slices: Any, windows: WindowSet, normalization: Normalization = UNIT_ENERGY, *, first_row: int = 0
) -> Any:
    """Return the scores of projections on all windows.

    Parameters
    ----------
    slices
        (N, n, n//2 + 1) complex64 from `kernels.slices.extract_slices`, N at most `ROWS`.
    windows
        From `window_set`, S windows and J filters.
    normalization
        Unit energy, unless another program's is asked for.
    first_row
        Where in the product of `ROWS` rows the slices go: the last bits of a score may hang on it.

    Returns
    -------
    (J, N, S) float32. 0 where a projection has no energy.
    """
    xp = array_module(slices)
    count, n = slices.shape[:2]
    padded = xp.zeros((ROWS, *slices.shape[1:]), xp.complex64)
    rows = slice(first_row, first_row + count)
    padded[rows] = slices
    shifts = len(windows.sums)
    raw = (padded.reshape(ROWS, -1).view(xp.float32) @ windows.columns)[rows]
    raw = raw.reshape(count, -1, shifts + 1).swapaxes(0, 1)
    energy = (_features(padded) @ windows.energies)[rows].T
    mean, area = raw[..., -1], float(n * n)
    share = area * (1.0 - normalization.mean_share) ** 2 + normalization.outside * normalization.mean_share**2
    energy = energy + share * mean * mean
    scale = xp.where(energy > 0, normalization.factor / xp.sqrt(xp.where(energy > 0, energy, 1.0)), 0.0)
    centred = raw[..., :-1] - mean[..., None] * windows.sums
    return centred * scale[..., None].astype(xp.float32)


def _energies(filters: Any, weight: np.ndarray, xp: ModuleType) -> Any:
    """Return what each feature of a slice adds to the energy of its projection, (K + 4n, J) float32."""
    n = filters.shape[1]
    weight = weight.copy()
    weight[:, [0, -1]] /= 2.0
    power = (xp.abs(filters) ** 2 * xp.asarray(weight)).reshape(len(filters), -1)
    edge = filters[:, :, [0, -1]].astype(xp.complex128)
    mates = (edge * edge[:, _mate_rows(n)]).reshape(len(filters), -1) / (2.0 * n**2)
    # Re(a b) = Re a Re b - Im a Im b
    pairs = xp.stack([mates.real, -mates.imag], axis=-1).reshape(len(filters), -1)
    return xp.ascontiguousarray(xp.concatenate([power, pairs], axis=1).T.astype(xp.float32))


def _features(slices: Any) -> Any:
    """Return what the energy of a projection is linear in, (N, K + 4n) float32.

    |P|^2, and for the columns kx = 0 and Nyquist P(ky) P(-ky) as real and imaginary part: a real projection
    keeps of these columns only what is their own Friedel mate, (P(ky) + P*(-ky))/2.
    """
    xp = array_module(slices)
    rows, n = slices.shape[:2]
    parts = slices.reshape(rows, -1).view(xp.float32)
    power = parts[:, ::2] ** 2 + parts[:, 1::2] ** 2
    edge = slices[:, :, [0, -1]]
    mates = xp.ascontiguousarray(edge * edge[:, _mate_rows(n)]).reshape(rows, -1).view(xp.float32)
    return xp.concatenate([power, mates], axis=1)


def _mate_rows(n: int) -> np.ndarray:
    """Return the row of -ky for every ky."""
    return -np.arange(n) % n


def _border(n: int) -> np.ndarray:
    """Return the image whose product with a projection is the mean of the projection's border."""
    border = np.full((n, n), 1.0 / (4 * (n - 1)), np.float32)
    border[1:-1, 1:-1] = 0.0
    return border
