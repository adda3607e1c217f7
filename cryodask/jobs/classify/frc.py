"""Correlation of two images by rings in Fourier space, and where it falls below a value.

Saxton and Baumeister (1982), "The correlation averaging of a regularly arranged bacterial cell envelope
protein".
"""

import numpy as np
import scipy.fft


def half_shells(box: int) -> np.ndarray:
    """Return the ring of each frequency of a half spectrum, (n, n//2 + 1) int."""
    y, x = scipy.fft.fftfreq(box)[:, None], scipy.fft.rfftfreq(box)
    return np.rint(np.hypot(y, x) * box).astype(np.int64)


def half_weights(box: int) -> np.ndarray:
    """Return how often each column of a half spectrum stands in the whole one, (n//2 + 1,)."""
    weights = np.full(box // 2 + 1, 2.0)
    weights[0] = 1.0
    if box % 2 == 0:
        weights[-1] = 1.0
    return weights


def shell_sums(values: np.ndarray, box: int) -> np.ndarray:
    """Return the sums of a half spectrum (n, n//2 + 1) over rings 0 .. n//2."""
    weighted = values * half_weights(box)
    return np.bincount(half_shells(box).ravel(), weighted.ravel())[: box // 2 + 1]


def ring_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the ring correlation of two images (n, n), rings 0 .. n//2; 0 where there is no power."""
    a, b = scipy.fft.rfft2(first.astype(np.float64)), scipy.fft.rfft2(second.astype(np.float64))
    box = first.shape[0]
    joint = shell_sums((a * b.conj()).real, box)
    power = shell_sums(np.abs(a) ** 2, box) * shell_sums(np.abs(b) ** 2, box)
    return np.where(power > 0, joint / np.sqrt(np.maximum(power, 1e-300)), 0.0)


def first_crossing(correlation: np.ndarray, value: float) -> float:
    """Return the ring at which a curve first falls below a value, linear between rings; the last if never."""
    below = np.flatnonzero(correlation[1:] < value) + 1
    if not len(below):
        return float(len(correlation) - 1)
    k = int(below[0])
    before, after = correlation[k - 1], correlation[k]
    return float(k) if before < value else k - 1 + (before - value) / (before - after)
