"""Searching at a lower resolution: image and template cropped in Fourier space by one ratio."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy.fft

from cryodask.optics.image_filters import frequency_lengths

LARGEST_DENOMINATOR = 16


@dataclass(frozen=True)
class Binning:
    """The ratio a/q of the searched size to the full one; 1/1 for none.

    Parameters
    ----------
    ratio_up, ratio_down
        a and q.
    box
        Edge n of the template, voxels, at full size.
    image_shape
        (H, W) at full size.
    """

    ratio_up: int
    ratio_down: int
    box: int
    image_shape: tuple[int, int]

    @property
    def ratio(self) -> float:
        """a/q."""
        return self.ratio_up / self.ratio_down

    @property
    def is_on(self) -> bool:
        """Whether anything is cropped."""
        return self.ratio_up != self.ratio_down

    @property
    def padded_box(self) -> int:
        """Edge to which the template is padded before it is cropped."""
        return _next_multiple(self.box, 2 * self.ratio_down) if self.is_on else self.box

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Shape to which the image is padded at its end before it is cropped."""
        if not self.is_on:
            return self.image_shape
        height, width = (_next_multiple(length, 2 * self.ratio_down) for length in self.image_shape)
        return height, width

    @property
    def searched_box(self) -> int:
        """Edge of the template that is searched with."""
        return self.padded_box * self.ratio_up // self.ratio_down

    @property
    def searched_shape(self) -> tuple[int, int]:
        """Shape of the image that is searched."""
        height, width = (length * self.ratio_up // self.ratio_down for length in self.padded_shape)
        return height, width

    def centres(self, positions: np.ndarray) -> np.ndarray:
        """Return the full-size pixel of the template's centre at searched top-left positions (float64)."""
        return (np.asarray(positions, np.float64) + self.searched_box // 2) / self.ratio

    def places(self, corners: np.ndarray) -> np.ndarray:
        """Return the searched top-left positions (float64) at the centres of full-size ones."""
        return (np.asarray(corners, np.float64) + self.box // 2) * self.ratio - self.searched_box // 2


def choose_binning(limit: float | None, pixel_size: float, box: int, image_shape: tuple[int, int]) -> Binning:
    """Return the coarsest binning that keeps a resolution.

    Parameters
    ----------
    limit
        Angstrom; None or two pixels and less: none.
    pixel_size
        Angstrom.
    box, image_shape
        Of the template and the image, pixels.
    """
    if limit is None or limit <= 2.0 * pixel_size:
        return Binning(1, 1, box, image_shape)
    wanted = 2.0 * pixel_size / limit
    ratios = (Fraction(math.ceil(wanted * down - 1e-9), down) for down in range(1, LARGEST_DENOMINATOR + 1))
    best = min(ratios)
    return Binning(best.numerator, best.denominator, box, image_shape)


def exact_binnings(box: int, image_shape: tuple[int, int]) -> list[Binning]:
    """Return the binnings of whole boxes, 1/1 last: their positions reach the borders of the full ones.

    Parameters
    ----------
    box, image_shape
        Of the template and the image, pixels.
    """
    ratios = {
        Fraction(up, down)
        for down in range(2, LARGEST_DENOMINATOR + 1)
        if box % (2 * down) == 0
        for up in range(1, down)
    }
    return [Binning(r.numerator, r.denominator, box, image_shape) for r in (*sorted(ratios), Fraction(1))]


def crop_image(image: np.ndarray, binning: Binning) -> np.ndarray:
    """Return a white image of unit variance at the searched size, of unit variance again.

    Parameters
    ----------
    image
        (H, W) float32, already filtered.
    binning
        The ratio.
    """
    if not binning.is_on:
        return image
    full, small = binning.padded_shape, binning.searched_shape
    padded = np.zeros(full, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    spectrum = _crop_rows(scipy.fft.rfft2(padded), small[0])[:, : small[1] // 2 + 1].copy()
    # the new edge stands for both signs of its frequency: without its own rows the crop stays Hermitian
    spectrum[small[0] // 2] = 0
    spectrum[:, small[1] // 2] = 0
    scale = math.sqrt(math.prod(small) / math.prod(full))
    return (scipy.fft.irfft2(spectrum, small) * np.float32(scale)).astype(np.float32)


def crop_stamp(image: np.ndarray, binning: Binning, offset: np.ndarray) -> np.ndarray:
    """Return how a particle in a full-size image looks in the one that `crop_image` makes of it.

    Parameters
    ----------
    image
        (n, n), n the template's edge, the particle's centre at pixel n//2.
    binning
        The ratio.
    offset
        (y, x) from the particle to the binned pixel it is looked at from, binned pixels.

    Returns
    -------
    (b, b) float64 about that pixel, b the edge of the binned template.
    """
    m, small = binning.padded_box, binning.searched_box
    padded = np.zeros((m, m))
    start = m // 2 - image.shape[0] // 2
    padded[start : start + image.shape[0], start : start + image.shape[0]] = image
    spectrum = _crop_rows(scipy.fft.rfft2(padded), small)[:, : small // 2 + 1].copy()
    if binning.is_on:
        spectrum[small // 2] = 0
        spectrum[:, small // 2] = 0
    y, x = (
        np.exp(2j * np.pi * k * d)
        for k, d in zip((scipy.fft.fftfreq(small), scipy.fft.rfftfreq(small)), offset, strict=True)
    )
    return np.asarray(scipy.fft.irfft2(spectrum * y[:, None] * x, (small, small)) * (small / m))


def crop_volume(volume: np.ndarray, binning: Binning) -> np.ndarray:
    """Return a template (n, n, n) at the searched size, its centre at voxel n//2 still."""
    if not binning.is_on:
        return volume
    m, small = binning.padded_box, binning.searched_box
    padded = np.zeros((m, m, m), np.float32)
    start = m // 2 - volume.shape[0] // 2
    padded[(slice(start, start + volume.shape[0]),) * 3] = volume
    spectrum = scipy.fft.rfftn(scipy.fft.ifftshift(padded))
    spectrum = _crop_rows(spectrum, small)
    spectrum = np.swapaxes(_crop_rows(np.swapaxes(spectrum, 0, 1), small), 0, 1)[..., : small // 2 + 1].copy()
    spectrum[small // 2], spectrum[:, small // 2], spectrum[..., small // 2] = 0, 0, 0
    cropped = scipy.fft.irfftn(spectrum, (small,) * 3) * (small / m) ** 3
    return scipy.fft.fftshift(cropped).astype(np.float32)


def retained_share(slices: np.ndarray, filters: np.ndarray, ratio: float) -> float:
    """Return the share of Σ |template · filter|² that a crop keeps, over a sample of slices.

    The z-score of a particle falls to about its root.

    Parameters
    ----------
    slices
        (N, n, n//2 + 1) complex, at full size.
    filters
        (n, n//2 + 1).
    ratio
        Of the crop.
    """
    n = slices.shape[-2]
    power = (np.abs(slices) ** 2).sum(axis=0, dtype=np.float64) * np.abs(filters) ** 2
    ky, kx = np.abs(scipy.fft.fftfreq(n))[:, None], scipy.fft.rfftfreq(n)[None]
    kept = (ky < 0.5 * ratio) & (kx < 0.5 * ratio)
    return float(power[kept].sum() / power.sum())


def searched_frequencies(binning: Binning) -> np.ndarray:
    """Return the lengths of the searched template's frequencies, cycles per full-size pixel."""
    return frequency_lengths((binning.searched_box,) * 2) * binning.ratio


def _crop_rows(spectrum: np.ndarray, rows: int) -> np.ndarray:
    """Keep the lowest frequencies of axis 0, un-shifted."""
    half = rows // 2
    return np.concatenate([spectrum[:half], spectrum[spectrum.shape[0] - half :]])


def _next_multiple(length: int, step: int) -> int:
    return -(-length // step) * step
