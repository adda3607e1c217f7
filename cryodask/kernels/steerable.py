"""The steerable basis: per angular frequency the radial profiles in which signal exceeds noise.

Zhao, Shkolnisky and Singer (2016), "Fast steerable principal component analysis"; here against the measured
covariance of noise, so that every coefficient has noise variance 1.
"""

from dataclasses import dataclass

import numba
import numpy as np
import scipy.linalg

from cryodask.kernels.transforms import JIT

RIDGE = 1e-3  # of the mean noise variance; keeps the inverse of the noise covariance tame
EDGE = 2.2  # of sqrt(R/N): eigenvalues of noise alone stay below 1 + 2 sqrt(R/N) (Marchenko and Pastur)


@dataclass(frozen=True)
class Basis:
    """Radial profiles, ordered by angular frequency.

    Parameters
    ----------
    starts : (M + 1,) int64
        Profiles starts[m] .. starts[m + 1] - 1 belong to frequency m.
    profiles : (P, R) float32
        Coefficient p is the sum over rings of profile p times the ring coefficient.
    weights : (P,) float32
        Wiener weight (lambda - 1) / lambda of each, or 1.
    """

    starts: np.ndarray
    profiles: np.ndarray
    weights: np.ndarray

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return len(self.profiles)

    @property
    def frequency(self) -> np.ndarray:
        """Angular frequency of each coefficient, (P,) int64."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def multiplicity(self) -> np.ndarray:
        """1 for frequency 0, else 2 (for the conjugate half of the spectrum), (P,) float32."""
        return np.where(self.frequency == 0, 1.0, 2.0).astype(np.float32)

    def project(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the basis coefficients (n, P) complex64 of ring coefficients (n, R, M)."""
        out = np.empty((len(coefficients), self.size), np.complex64)
        _project(np.ascontiguousarray(coefficients, np.complex64), self.starts, self.profiles, out)
        return out

    def norm(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the norm (n,) float64 of basis coefficients (n, P), both halves of the spectrum counted."""
        power = np.square(coefficients.real, dtype=np.float64) + np.square(
            coefficients.imag, dtype=np.float64
        )
        return np.sqrt(power @ self.multiplicity.astype(np.float64))

    def dot(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the real inner products (n,) of basis coefficients, row by row."""
        products = (first * second.conj()).real
        return products @ self.multiplicity


def covariance_sum(coefficients: np.ndarray) -> np.ndarray:
    """Return the sum over images of Re(A A^H), (M, R, R) float64, of ring coefficients (n, R, M)."""
    _, rings, frequencies = coefficients.shape
    total = np.zeros((frequencies, rings, rings))
    _add_covariance(np.ascontiguousarray(coefficients, np.complex64), total)
    return total


def make_basis(signal: np.ndarray, noise: np.ndarray, images: int, *, edge: float = EDGE) -> Basis:
    """Return the profiles in which images vary more than noise does.

    Parameters
    ----------
    signal, noise : (M, R, R) float64
        Mean covariances of images and of noise, as sums of `covariance_sum` over their number.
    images : int
        How many images the first is the mean of; few images spread the eigenvalues of noise.
    edge : float
        Eigenvalues above 1 + edge sqrt(R/N) are signal; -inf keeps every profile.
    """
    rings = signal.shape[1]
    profiles, weights, counts = [], [], []
    for m, (c, d) in enumerate(zip(signal, noise, strict=True)):
        values, vectors = _eigen(c, d)
        keep = values > 1 + edge * np.sqrt((rings if m else 2 * rings) / images)
        if not keep.any():
            keep[0] = True
        profiles.append(vectors[:, keep].T)
        weights.append(np.maximum(values[keep] - 1, 1e-3) / np.maximum(values[keep], 1e-3))
        counts.append(int(keep.sum()))
    return _joined(profiles, weights, counts)


def _joined(profiles: list[np.ndarray], weights: list[np.ndarray], counts: list[int]) -> Basis:
    return Basis(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.ascontiguousarray(np.concatenate(profiles), np.float32),
        np.concatenate(weights).astype(np.float32),
    )


def _eigen(c: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve C u = lambda (D + ridge) u, largest first; the sign of u makes its largest entry positive."""
    rings = len(d)
    values, vectors = scipy.linalg.eigh(c, d + RIDGE * np.trace(d) / rings * np.eye(rings))
    values, vectors = values[::-1].copy(), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(rings)])


@numba.njit(fastmath=True, **JIT)
def _project(rings: np.ndarray, starts: np.ndarray, profiles: np.ndarray, out: np.ndarray) -> None:
    for i in range(rings.shape[0]):
        for m in range(starts.size - 1):
            for p in range(starts[m], starts[m + 1]):
                re, im = np.float32(0.0), np.float32(0.0)
                for r in range(rings.shape[1]):
                    re += profiles[p, r] * rings[i, r, m].real
                    im += profiles[p, r] * rings[i, r, m].imag
                out[i, p] = complex(re, im)


@numba.njit(fastmath=True, **JIT)
def _add_covariance(rings: np.ndarray, total: np.ndarray) -> None:
    count = rings.shape[1]
    re, im = np.empty(count), np.empty(count)
    for i in range(rings.shape[0]):
        for m in range(rings.shape[2]):
            for r in range(count):
                re[r], im[r] = rings[i, r, m].real, rings[i, r, m].imag
            for r in range(count):
                for q in range(count):
                    total[m, r, q] += re[r] * re[q] + im[r] * im[q]
