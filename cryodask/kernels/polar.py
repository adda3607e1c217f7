"""Images as Fourier coefficients on rings about a movable centre, and back.

A[r, m] = T^-1/2 sum_t sqrt(r) I(c + s + r e^(i theta_t)) e^(-i m theta_t): a rotation of the image by phi
multiplies the coefficients by e^(-i m phi), the mirror y -> -y conjugates them (Penczek, Radermacher and
Frank 1992, "Three-dimensional reconstruction of single particles embedded in ice"). Every image is
transformed by itself in a fixed order: its coefficients do not depend on the images beside it.
"""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from cryodask.kernels.transforms import JIT


@dataclass(frozen=True)
class PolarGrid:
    """Rings, samples on a ring, and the angular frequencies that are kept.

    Parameters
    ----------
    first, last, step : pixels
        Radii of the innermost and the outermost ring, and their distance.
    samples : int
        On each ring; even.
    frequencies : int
        Kept angular frequencies 0 .. frequencies - 1.
    """

    first: int
    last: int
    step: int
    samples: int
    frequencies: int

    @cached_property
    def radii(self) -> np.ndarray:
        """Radii of the rings, (r,) float64 pixels."""
        return np.arange(self.first, self.last + 1, self.step, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rings and frequencies: the shape of one image's coefficients."""
        return len(self.radii), self.frequencies

    @cached_property
    def _places(self) -> np.ndarray:
        angle = 2 * np.pi * np.arange(self.samples) / self.samples
        circle = np.stack([np.cos(angle), np.sin(angle)])
        return (self.radii[:, None] * circle[:, None, :]).astype(np.float32)

    @cached_property
    def _waves(self) -> np.ndarray:
        phase = np.outer(np.arange(self.samples), np.arange(self.frequencies)) % self.samples
        angle = 2 * np.pi * phase / self.samples
        return (np.stack([np.cos(angle), np.sin(angle)]) / np.sqrt(self.samples)).astype(np.float32)

    @cached_property
    def _ring_weights(self) -> np.ndarray:
        return np.sqrt(self.radii).astype(np.float32)

    def coefficients(self, images: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Return the ring coefficients of images about their centres.

        Parameters
        ----------
        images : (n, L, L) float32, y x
        centres : (n, 2), x y, pixels from voxel L//2
            Samples outside the box are 0.

        Returns
        -------
        (n, rings, frequencies) complex64
        """
        n, rings = len(images), self.shape[0]
        parts = np.empty((n, rings, 2, self.frequencies), np.float32)
        _transform(
            np.ascontiguousarray(images, np.float32),
            np.ascontiguousarray(centres, np.float32),
            self._places,
            self._ring_weights,
            self._waves,
            parts,
        )
        return _as_complex(parts)

    def images(self, coefficients: np.ndarray, box: int) -> np.ndarray:
        """Return the pictures that ring coefficients describe; 0 beyond the last ring.

        Parameters
        ----------
        coefficients : (n, rings, frequencies) complex
        box : int, pixels

        Returns
        -------
        (n, box, box) float32, y x
        """
        spectrum = np.zeros((*coefficients.shape[:2], self.samples // 2 + 1), np.complex64)
        spectrum[..., : self.frequencies] = coefficients
        scale = np.sqrt(self.samples) / np.sqrt(self.radii)[:, None]
        rings = np.fft.irfft(spectrum, n=self.samples, axis=-1) * scale
        pictures = np.zeros((len(rings), box, box), np.float32)
        steps = np.array([self.first, self.last, self.step], np.float32)
        _paint(np.ascontiguousarray(rings, np.float32), steps, pictures)
        return pictures


def _as_complex(parts: np.ndarray) -> np.ndarray:
    joined = np.empty((*parts.shape[:2], parts.shape[3]), np.complex64)
    joined.real, joined.imag = parts[:, :, 0], parts[:, :, 1]
    return joined


@numba.njit(fastmath=True, **JIT)
def _sample_ring(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, cx: float, cy: float, ring: np.ndarray
) -> None:
    """Fill a ring with bilinear samples; 0 outside the box."""
    edge = image.shape[0] - 1
    for t in range(ring.size):
        px, py = cx + x[t], cy + y[t]
        x0, y0 = int(np.floor(px)), int(np.floor(py))
        if x0 < 0 or y0 < 0 or x0 >= edge or y0 >= edge:
            ring[t] = 0.0
            continue
        fx, fy = px - np.float32(x0), py - np.float32(y0)
        top = image[y0, x0] + fx * (image[y0, x0 + 1] - image[y0, x0])
        low = image[y0 + 1, x0] + fx * (image[y0 + 1, x0 + 1] - image[y0 + 1, x0])
        ring[t] = top + fy * (low - top)


@numba.njit(fastmath=True, **JIT)
def _ring_spectrum(ring: np.ndarray, weight: float, waves: np.ndarray, out: np.ndarray) -> None:
    """Transform one ring, samples at theta and -theta folded together."""
    samples, half = ring.size, ring.size // 2
    cosine, sine = waves[0], waves[1]
    for m in range(out.shape[1]):
        out[0, m] = ring[0] * cosine[0, m] + ring[half] * cosine[half, m]
        out[1, m] = 0.0
    for t in range(1, half):
        even, odd = ring[t] + ring[samples - t], ring[samples - t] - ring[t]
        for m in range(out.shape[1]):
            out[0, m] += even * cosine[t, m]
            out[1, m] += odd * sine[t, m]
    for m in range(out.shape[1]):
        out[0, m] *= weight
        out[1, m] *= weight


@numba.njit(fastmath=True, **JIT)
def _transform(
    images: np.ndarray,
    centres: np.ndarray,
    places: np.ndarray,
    weights: np.ndarray,
    waves: np.ndarray,
    out: np.ndarray,
) -> None:
    middle = np.float32(images.shape[1] // 2)
    ring = np.empty(places.shape[2], np.float32)
    for i in range(images.shape[0]):
        cx, cy = middle + centres[i, 0], middle + centres[i, 1]
        for r in range(weights.size):
            _sample_ring(images[i], places[0, r], places[1, r], cx, cy, ring)
            _ring_spectrum(ring, weights[r], waves, out[i, r])


@numba.njit(fastmath=True, **JIT)
def _paint(rings: np.ndarray, steps: np.ndarray, pictures: np.ndarray) -> None:
    """Interpolate rings (n, r, t) at the pixels, linearly in radius and angle."""
    count, samples, box = rings.shape[1], rings.shape[2], pictures.shape[1]
    first, last, step = steps[0], steps[1], steps[2]
    for y in range(box):
        for x in range(box):
            dx, dy = np.float32(x - box // 2), np.float32(y - box // 2)
            radius = np.sqrt(dx * dx + dy * dy)
            if radius > last:
                continue
            turn = np.arctan2(dy, dx) * samples / (2 * np.pi)
            turn = turn + samples if turn < 0 else turn
            t0 = int(turn)
            ft = np.float32(turn - t0)
            t0, t1 = t0 % samples, (t0 + 1) % samples
            place = max(radius - first, np.float32(0.0)) / step
            r0 = min(int(place), count - 1)
            r1, fr = min(r0 + 1, count - 1), np.float32(place - r0)
            for k in range(rings.shape[0]):
                inner = rings[k, r0, t0] * (1 - ft) + rings[k, r0, t1] * ft
                outer = rings[k, r1, t0] * (1 - ft) + rings[k, r1, t1] * ft
                pictures[k, y, x] = inner + fr * (outer - inner)
