"""Correlation of images with references over all in-plane angles and the mirror, best offset kept.

With x the coefficients of an image and y those of a reference in the steerable basis, of unit norm,

    c(phi)  = sum_m k_m Re(e^(i m phi) sum_p x_mp conj(y_mp))         the image as it is
    c'(phi) = sum_m k_m Re(e^(i m phi) sum_p conj(x_mp) conj(y_mp))   mirrored (y -> -y)

k_0 = 1 and k_m = 2 else. Both come from the same four real products. The even and odd parts E and O over an
angle give c(+-phi) = E -+ O, so the best of the two is E + |O|; even and odd m apart give phi and 180 - phi
at once. 16 images go through the vector lanes, references one after the other: nothing is written
but the winner.
"""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from cryodask.kernels.simd import LANES, fill, load, store, where_greater
from cryodask.kernels.steerable import Basis
from cryodask.kernels.transforms import JIT

MIRRORED = 1024  # of a code: angle index in the lower bits, its sign apart
NEGATIVE = 2048
OFFSET = 4096
LEAST = np.float32(-1e30)


@dataclass(frozen=True)
class AngleTable:
    """The searched angles 0, step, .. 360 - step, as quarter-circle tables of k_m cos and k_m sin.

    Parameters
    ----------
    angles : int
        In the full circle; a multiple of 4.
    frequencies : int
        Angular frequencies m = 0 .. frequencies - 1.
    widest : int or None
        Largest angle index, to either side of 0 and of half a turn, that is searched; None searches all.
    """

    angles: int
    frequencies: int
    widest: int | None = None

    @property
    def step(self) -> float:
        """Distance of the angles, radians."""
        return 2 * np.pi / self.angles

    @cached_property
    def waves(self) -> np.ndarray:
        """k_m cos(m phi) and k_m sin(m phi) at the searched angles of a quadrant, (2, f, m) float32."""
        count = self.angles // 4 if self.widest is None else self.widest
        phase = np.outer(np.arange(count + 1), np.arange(self.frequencies)) * self.step
        k = np.where(np.arange(self.frequencies) == 0, 1.0, 2.0)
        return (np.stack([np.cos(phase), np.sin(phase)]) * k).astype(np.float32)

    def decode(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return angle (radians, float64), mirror (bool) and offset index (int64) of codes of any shape."""
        angle = (code % MIRRORED) * self.step
        angle = np.where(code & NEGATIVE, -angle, angle)
        return angle, (code & MIRRORED) > 0, code // OFFSET


def in_lanes(coefficients: np.ndarray) -> np.ndarray:
    """Return coefficients (n, P) complex as blocks of 16 images, (blocks, 2, P, 16) float32, zeros behind."""
    n, size = coefficients.shape
    blocks = -(-n // LANES)
    padded = np.zeros((blocks * LANES, size), np.complex64)
    padded[:n] = coefficients
    padded = padded.reshape(blocks, LANES, size).transpose(0, 2, 1)
    return np.ascontiguousarray(np.stack([padded.real, padded.imag], axis=1))


def correlate(
    images: np.ndarray, references: np.ndarray, basis: Basis, table: AngleTable
) -> tuple[np.ndarray, np.ndarray]:
    """Score images against references over angle, mirror and offset.

    Parameters
    ----------
    images : (blocks, 2, P, 16) float32
        From `in_lanes`.
    references : (K, S, P) complex64
        Of unit norm, about each of S offsets.
    basis : Basis
    table : AngleTable

    Returns
    -------
    score : (blocks * 16, K) float32
        Largest correlation; in sigma of the noise where images have noise variance 1.
    code : (blocks * 16, K) int32
        Its offset, mirror and angle, for `AngleTable.decode`; ties go to the lowest.
    """
    count = images.shape[0] * LANES
    score = np.empty((count, len(references)), np.float32)
    code = np.empty((count, len(references)), np.int32)
    parts = np.ascontiguousarray(np.stack([references.real, references.imag], axis=2), np.float32)
    _correlate(images, parts, basis.starts, table.waves, table.angles // 2, score, code)
    return score, code


@numba.njit(**JIT)
def _products(x: np.ndarray, y: np.ndarray, starts: np.ndarray, g: np.ndarray) -> None:
    """Write Re and Im of x conj(y), then of conj(x) conj(y), summed per frequency: g (m, 4, 16)."""
    size = y.shape[1]
    flat, out = x.reshape(-1), g.reshape(-1)
    for m in range(starts.size - 1):
        p = fill(np.float32(0.0))
        q, u, v = p, p, p
        for c in range(starts[m], starts[m + 1]):
            xr, xi = load(flat, c * LANES), load(flat, (size + c) * LANES)
            yr, yi = fill(y[0, c]), fill(y[1, c])
            p, q = p + xr * yr, q + xi * yi
            u, v = u + xr * yi, v + xi * yr
        at = m * 4 * LANES
        store(out, at, p + q)
        store(out, at + LANES, v - u)
        store(out, at + 2 * LANES, p - q)
        store(out, at + 3 * LANES, fill(np.float32(0.0)) - (u + v))


@numba.njit(**JIT)
def _scan(
    g: np.ndarray, waves: np.ndarray, last: int, best: np.ndarray, place: np.ndarray, offset: int
) -> None:
    """Raise best (16,) and place (16,) by one reference: all angles of both mirrors."""
    flat = g.reshape(-1)
    value, where = load(best, 0), load(place, 0)
    zero = fill(np.float32(0.0))
    for mirror in range(2):
        base = offset * OFFSET + mirror * MIRRORED
        for f in range(waves.shape[1]):
            even_e, even_o, odd_e, odd_o = zero, zero, zero, zero
            for m in range(0, waves.shape[2], 2):
                at = (m * 4 + mirror * 2) * LANES
                even_e = even_e + fill(waves[0, f, m]) * load(flat, at)
                even_o = even_o + fill(waves[1, f, m]) * load(flat, at + LANES)
            for m in range(1, waves.shape[2], 2):
                at = (m * 4 + mirror * 2) * LANES
                odd_e = odd_e + fill(waves[0, f, m]) * load(flat, at)
                odd_o = odd_o + fill(waves[1, f, m]) * load(flat, at + LANES)
            for side in range(2):
                e, o, index = even_e + odd_e, even_o + odd_o, f
                if side == 1:
                    e, o, index = even_e - odd_e, odd_o - even_o, last - f
                code = where_greater(
                    o, zero, fill(np.float32(base + NEGATIVE + index)), fill(np.float32(base + index))
                )
                score = e + where_greater(o, zero, o, zero - o)
                where = where_greater(score, value, code, where)
                value = where_greater(score, value, score, value)
    store(best, 0, value)
    store(place, 0, where)


@numba.njit(**JIT)
def _correlate(
    images: np.ndarray,
    references: np.ndarray,
    starts: np.ndarray,
    waves: np.ndarray,
    last: int,
    score: np.ndarray,
    code: np.ndarray,
) -> None:
    g = np.empty((waves.shape[2], 4, LANES), np.float32)
    best, place = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for block in range(images.shape[0]):
        for k in range(references.shape[0]):
            best[:], place[:] = LEAST, np.float32(0.0)
            for d in range(references.shape[1]):
                _products(images[block], references[k, d], starts, g)
                _scan(g, waves, last, best, place, d)
            for lane in range(LANES):
                score[block * LANES + lane, k] = best[lane]
                code[block * LANES + lane, k] = np.int32(place[lane])


def pair_spectra(images: np.ndarray, references: np.ndarray, mirror: np.ndarray, basis: Basis) -> np.ndarray:
    """Return k_m sum_p x conj(y) (n, M) complex64 of pairs of images and references (n, P).

    Parameters
    ----------
    mirror : (n,) bool
        Whose image is conjugated first.
    """
    out = np.empty((len(images), len(basis.starts) - 1), np.complex64)
    _pair_spectra(images, references, mirror, basis.starts, out)
    return out


@numba.njit(fastmath=True, **JIT)
def _pair_spectra(
    x: np.ndarray, y: np.ndarray, mirror: np.ndarray, starts: np.ndarray, out: np.ndarray
) -> None:
    for i in range(x.shape[0]):
        sign = np.float32(-1.0) if mirror[i] else np.float32(1.0)
        for m in range(starts.size - 1):
            re, im = np.float32(0.0), np.float32(0.0)
            for p in range(starts[m], starts[m + 1]):
                xr, xi = x[i, p].real, sign * x[i, p].imag
                yr, yi = y[i, p].real, y[i, p].imag
                re += xr * yr + xi * yi
                im += xi * yr - xr * yi
            k = np.float32(1.0) if m == 0 else np.float32(2.0)
            out[i, m] = complex(k * re, k * im)


def refine_angles(spectra: np.ndarray, angles: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the best angles near given ones, to step / 64, and the correlation there.

    Parameters
    ----------
    spectra : (n, M) complex64
        From `pair_spectra`.
    angles : (n,) radians
    step : radians
        Distance of the coarse angles: 5 trials each at step / 4, / 16 and / 64.

    Returns
    -------
    angles : (n,) float64, radians
    score : (n,) float32
    """
    refined, score = np.empty(len(angles)), np.empty(len(angles), np.float32)
    _refine(spectra, np.ascontiguousarray(angles, np.float64), step, refined, score)
    return refined, score


@numba.njit(fastmath=True, **JIT)
def _refine(
    spectra: np.ndarray, angles: np.ndarray, step: float, refined: np.ndarray, score: np.ndarray
) -> None:
    for i in range(angles.size):
        angle, best = angles[i], -1e30
        for level in range(3):
            width, middle = step / 4.0 ** (level + 1), angle
            for trial in range(-2, 3):
                candidate = middle + trial * width
                value = 0.0
                for m in range(spectra.shape[1]):
                    value += spectra[i, m].real * np.cos(m * candidate)
                    value -= spectra[i, m].imag * np.sin(m * candidate)
                if value > best:
                    best, angle = value, candidate
        refined[i], score[i] = angle, best
