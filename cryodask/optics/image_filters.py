"""Filters of images and projections over the length of the frequency, and what an image's variance is after.

Frequencies are cycles per pixel (Nyquist 0.5). Whitening and band-pass follow Leopard-EM and
torch-fourier-filter, so that their numbers come out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryodask.optics.ctf_image import half_plane

# The curve reaches to the corner of the spectrum.
CORNER = math.sqrt(0.5)


@dataclass(frozen=True, eq=False)
class Curve:
    """A factor over the length of the frequency, linear between points.

    Parameters
    ----------
    frequencies
        (S,) rising, cycles per pixel.
    values
        (S,).
    outside
        The value beyond both ends; None continues the end values.
    """

    frequencies: np.ndarray
    values: np.ndarray
    outside: float | None = None

    def __call__(self, k: np.ndarray) -> np.ndarray:
        """Return the factor at frequencies (any shape)."""
        return np.interp(k, self.frequencies, self.values, left=self.outside, right=self.outside)


@dataclass(frozen=True)
class BandPassEdges:
    """A band with cosine falls: 1 on low < k <= high.

    Parameters
    ----------
    low, high
        Cycles per pixel.
    falloff
        Width of each fall, cycles per pixel.
    """

    low: float = 0.0
    high: float = 1.0
    falloff: float = 0.0

    def __call__(self, k: np.ndarray) -> np.ndarray:
        """Return the band-pass at frequencies (any shape)."""
        k = np.asarray(k, np.float64)
        inside = (k > self.low) & (k <= self.high)
        if self.falloff <= 0:
            return inside.astype(np.float64)
        distance = np.where(k <= self.low, self.low - k, k - self.high)
        near = (k > self.low - self.falloff) & (k <= self.high + self.falloff)
        fall = np.cos(0.5 * math.pi * distance / self.falloff)
        return np.where(inside, 1.0, np.where(near, fall, 0.0))


def frequency_lengths(shape: tuple[int, int]) -> np.ndarray:
    """Return the length of every frequency of an image's half spectrum, (y, x//2 + 1), cycles per pixel."""
    ky, kx = half_plane(shape)
    return np.hypot(ky, kx)


def whitening_curve(
    spectrum: np.ndarray,
    shape: tuple[int, int],
    *,
    bins: int | None = None,
    is_power: bool = True,
    max_frequency: float | None = 0.5,
) -> Curve:
    """Return the factor that flattens the spectrum of an image, greatest 1 up to `max_frequency`.

    Each stored coefficient is shared linearly between the two nearest of the curve's points.

    Parameters
    ----------
    spectrum
        (y, x//2 + 1) complex, the half spectrum of the image.
    shape
        (y, x) of the image.
    bins
        Points of the curve; int((m//2 + 1) sqrt(2) + 1), m the longer edge of the half spectrum, by default.
    is_power
        The mean of |F|^2 is taken and its root; else the mean of |F|.
    max_frequency
        Beyond it the factor is 1; None for no such limit.
    """
    amplitude = np.abs(spectrum).astype(np.float64)
    count = bins or int((max(spectrum.shape) // 2 + 1) * math.sqrt(2.0) + 1)
    points = np.linspace(0.0, CORNER, count)
    place = np.clip(frequency_lengths(shape) / (CORNER / (count - 1)), 0.0, count - 1).ravel()
    low = np.minimum(place.astype(np.intp), count - 2)
    share = place - low
    values = (amplitude**2 if is_power else amplitude).ravel()
    total = np.bincount(low, values * (1 - share), count) + np.bincount(low + 1, values * share, count)
    weight = np.bincount(low, 1 - share, count) + np.bincount(low + 1, share, count)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    mean = np.sqrt(mean) if is_power else mean
    factor = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0)
    kept = np.ones(count, bool) if max_frequency is None else points <= max_frequency
    greatest = factor[kept].max(initial=0.0)
    factor = np.where(kept, factor / (greatest or 1.0), 1.0)
    return Curve(points, factor)


def filter_grid(shape: tuple[int, int], curves: "Sequence[Curve | BandPassEdges]") -> np.ndarray:
    """Return the product of curves over the half spectrum of an image, (y, x//2 + 1) float64."""
    k = frequency_lengths(shape)
    product = np.ones(k.shape)
    for curve in curves:
        product *= curve(k)
    return product


def full_plane_sum(half: np.ndarray, width: int) -> float:
    """Return the sum over the full plane of what the half plane (y, x//2 + 1) holds."""
    inner = half[:, 1 : (width + 1) // 2].sum(dtype=np.float64)
    return float(half.sum(dtype=np.float64) + inner)


def normalized_image(
    spectrum: np.ndarray,
    shape: tuple[int, int],
    image_filter: np.ndarray,
    band: "BandPassEdges | None" = None,
) -> np.ndarray:
    """Return the filtered image, scaled so that a unit-energy template scores noise with variance 1.

    Parameters
    ----------
    spectrum
        (y, x//2 + 1) complex of the image; its DC is ignored.
    shape
        (y, x).
    image_filter
        (y, x//2 + 1).
    band
        The band-pass that is part of the filter; the variance becomes the share of the plane that it keeps.

    Returns
    -------
    numpy.ndarray
        (y, x) float32, mean 0; all zero where the filter leaves nothing.
    """
    filtered = spectrum * image_filter
    filtered[0, 0] = 0.0
    image = scipy.fft.irfft2(filtered, shape)
    variance = float(np.mean(np.square(image, dtype=np.float64), dtype=np.float64))
    wanted = 1.0 if band is None else full_plane_sum(band(frequency_lengths(shape)), shape[1]) / image.size
    scale = math.sqrt(wanted / variance) if variance > 0 else 0.0
    return (image * scale).astype(np.float32)
