"""From particle images to working images: background, phases, size, white noise of unit variance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from scipy.ndimage import affine_transform

from cryodask.jobs.classify.frc import half_shells

MARGIN = 1.1  # of a filament's width, that belong to it
FLOOR = 1e-2  # of the median noise power, below which whitening divides by no less


@dataclass(frozen=True)
class WorkingShape:
    """How input images become working images.

    Parameters
    ----------
    box, working_box : int
        Edges n and L, pixels.
    radius, working_radius : float
        The particle's in both, r0 and R; their ratio is the scale.
    filament : float
        Width of filaments, input pixels; 0 for particles. Working images of filaments lie along x.
    """

    box: int
    working_box: int
    radius: float
    working_radius: float
    filament: float = 0.0

    @property
    def rho(self) -> float:
        """Input pixels per working pixel is 1 / rho."""
        return self.working_radius / self.radius

    @cached_property
    def background(self) -> np.ndarray:
        """Pixels outside the particle, (n, n) bool."""
        return _distance(self.box) > self.radius

    @cached_property
    def places(self) -> np.ndarray:
        """Positions of the working pixels along an axis of the input, (L,) float64."""
        return self.box // 2 + (np.arange(self.working_box) - self.working_box // 2) / self.rho

    @cached_property
    def covered(self) -> np.ndarray:
        """Working pixels along an axis that lie within the input, (L,) bool."""
        return (self.places >= -1e-9) & (self.places <= self.box - 1 + 1e-9)

    @cached_property
    def noise_mask(self) -> np.ndarray:
        """Working pixels that show noise alone, (L, L) bool."""
        covered = np.outer(self.covered, self.covered)
        if self.filament:
            return ~self.rectangle & covered
        return (_distance(self.working_box) > self.working_radius) & covered

    @property
    def bar(self) -> float:
        """Width of filaments, working pixels."""
        return self.filament * self.rho

    @cached_property
    def rectangle(self) -> np.ndarray:
        """Working pixels along the axis of a filament, 1.1 times its width, (L, L) bool."""
        across = np.abs(np.arange(self.working_box) - self.working_box // 2) <= MARGIN * self.bar / 2
        return np.tile(across[:, None], (1, self.working_box))

    @cached_property
    def resampling(self) -> np.ndarray:
        """Band-limited interpolation along one axis, (L, n) float32.

        Frequencies beyond the Nyquist of either sampling are left out; pixel n//2 lies on L//2.
        """
        n = self.box
        limit = min(n / 2, n * self.rho / 2)
        frequency = np.arange(-(n // 2), n // 2 + 1)
        weight = np.where(np.abs(frequency) < limit - 1e-6, 1.0, 0.0)
        weight[np.abs(np.abs(frequency) - limit) <= 1e-6] = 0.5
        distance = self.places[:, None] - np.arange(n)
        waves = np.cos(2 * np.pi * distance[..., None] * frequency / n) @ weight / n
        return np.where(self.covered[:, None], waves, 0).astype(np.float32)


def _distance(box: int) -> np.ndarray:
    axis = np.arange(box) - box // 2
    return np.hypot(axis[:, None], axis)


def centred_background(images: np.ndarray, shape: WorkingShape) -> np.ndarray:
    """Return images (n, y, x) float32 less their mean outside the particle."""
    images = images.astype(np.float32)
    return images - images[:, shape.background].mean(axis=1, dtype=np.float64)[:, None, None].astype(
        np.float32
    )


def flipped(images: np.ndarray, ctfs: np.ndarray) -> np.ndarray:
    """Return images with the signs of their transfer functions (n, y, x//2 + 1) undone."""
    spectra = scipy.fft.rfft2(images) * np.where(ctfs < 0, np.float32(-1), np.float32(1))
    return scipy.fft.irfft2(spectra, s=images.shape[1:]).astype(np.float32)


def ring_amplitudes(images: np.ndarray) -> np.ndarray:
    """Return the root of the mean power of each ring of each image's spectrum, (n, shells) float64."""
    shells = half_shells(images.shape[1]).ravel()
    power = np.square(np.abs(scipy.fft.rfft2(images)))
    counts = np.bincount(shells)
    return np.sqrt(np.stack([np.bincount(shells, each.ravel()) / counts for each in power]))


def amplified(images: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return images with the rings of their spectra multiplied by factors (shells,), linear between rings."""
    box = images.shape[1]
    radius = np.hypot(scipy.fft.fftfreq(box)[:, None], scipy.fft.rfftfreq(box)) * box
    transfer = np.interp(radius, np.arange(len(factor)), factor).astype(np.float32)
    return scipy.fft.irfft2(scipy.fft.rfft2(images) * transfer, s=images.shape[1:]).astype(np.float32)


def resampled(images: np.ndarray, shape: WorkingShape) -> np.ndarray:
    """Return images at the working size, (n, L, L) float32, 0 outside the input."""
    if shape.rho == 1 and shape.box == shape.working_box:
        return images
    along = shape.resampling
    return np.matmul(np.matmul(along, images), along.T)


def turned_along(images: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return images (n, L, L) turned so that the axis at each angle (radians, from x to y) lies along x."""
    middle = np.full(2, images.shape[1] // 2, np.float64)
    turned = np.empty_like(images)
    for i, (image, angle) in enumerate(zip(images, angles, strict=True)):
        c, s = np.cos(angle), np.sin(angle)
        matrix = np.array([[c, s], [-s, c]])  # of (y, x): I'(x) = I(Rot(angle) x)
        turned[i] = affine_transform(image, matrix, middle - matrix @ middle, order=3)
    return turned


def noise_power(images: np.ndarray, shape: WorkingShape) -> np.ndarray:
    """Return the radial power of the noise around each particle, (n, shells) float64.

    The periodogram of the masked image over the number of its pixels.
    """
    mask, shells = shape.noise_mask, half_shells(shape.working_box)
    values = images - images[:, mask].mean(axis=1)[:, None, None]
    power = np.square(np.abs(scipy.fft.rfft2(np.where(mask, values, 0)))) / mask.sum()
    counts = np.bincount(shells.ravel())
    return np.stack([np.bincount(shells.ravel(), each.ravel()) / counts for each in power])


def whitened(images: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return images divided by the root of the noise power (shells,) of their group."""
    floor = FLOOR * np.median(power)
    transfer = 1 / np.sqrt(np.maximum(power, floor) if floor > 0 else np.ones_like(power))
    filtered = scipy.fft.rfft2(images) * transfer[half_shells(images.shape[1])].astype(np.float32)
    return scipy.fft.irfft2(filtered, s=images.shape[1:]).astype(np.float32)


def levelled(images: np.ndarray, shape: WorkingShape) -> tuple[np.ndarray, np.ndarray]:
    """Return images less their mean in the noise, and their standard deviation (n,) there."""
    outside = images[:, shape.noise_mask].astype(np.float64)
    level, deviation = outside.mean(axis=1), outside.std(axis=1)
    covered = np.outer(shape.covered, shape.covered)
    return np.where(covered, images - level[:, None, None], 0).astype(np.float32), deviation


def levelled_inside(images: np.ndarray, shape: WorkingShape) -> tuple[np.ndarray, np.ndarray]:
    """Return images less their mean within the particle, and their standard deviation (n,) there."""
    inside = images[:, _distance(shape.working_box) <= shape.working_radius].astype(np.float64)
    level, deviation = inside.mean(axis=1), inside.std(axis=1)
    covered = np.outer(shape.covered, shape.covered)
    return np.where(covered, images - level[:, None, None], 0).astype(np.float32), deviation


def coloured(noise: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return white noise images with the given radial power (shells,)."""
    transfer = np.sqrt(power)[half_shells(noise.shape[1])].astype(np.float32)
    return scipy.fft.irfft2(scipy.fft.rfft2(noise) * transfer, s=noise.shape[1:]).astype(np.float32)
