"""How well class averages show projections of the volume: best over direction, angle, mirror and shift."""

import numpy as np
import scipy.fft

from cryodask.jobs.classify.averages import laid_on_reference
from cryodask.jobs.classify.frc import first_crossing, ring_correlation
from cryodask.kernels.polar import PolarGrid
from cryodask.simulate.class_works import cropped_spectrum, exact_projections

DIRECTIONS, RADIUS, ANGLES, FREQUENCIES = 1000, 26, 128, 40
SHIFTS = [(x, y) for y in range(-3, 4) for x in range(-3, 4)]


def hemisphere(count: int) -> np.ndarray:
    """Return directions spread evenly over a hemisphere, (count, 3)."""
    i = np.arange(count)
    z, azimuth = 1 - (i + 0.5) / count, np.pi * (1 + np.sqrt(5)) * (i + 0.5)
    s = np.sqrt(1 - z * z)
    return np.stack([s * np.cos(azimuth), s * np.sin(azimuth), z], axis=1)


def frames(axis: np.ndarray) -> np.ndarray:
    """Return rotations (n, 3, 3) whose third row is the axis."""
    helper = np.where(np.abs(axis[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    x = np.cross(helper, axis)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(axis, x), axis], axis=1)


def compare(averages: np.ndarray, volume: np.ndarray, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation within 26 pixels, and the FRC = 0.5 resolution (angstrom), of each average."""
    box = averages.shape[1]
    density = cropped_spectrum(volume, box)
    views = exact_projections(density, frames(hemisphere(DIRECTIONS)))
    axis = np.arange(box) - box // 2
    disc = np.hypot(axis[:, None], axis) <= RADIUS
    grid = PolarGrid(1, RADIUS, 1, ANGLES, FREQUENCIES)
    bank = _unit(grid.coefficients(views, np.zeros((len(views), 2))))
    found = []
    for average in averages:
        view, angle, mirror, centre = _best(grid, average, bank)
        lying = [
            laid_on_reference(average, centre, angle + np.radians(turn), mirror) for turn in (-2, -1, 0, 1, 2)
        ]
        fits = [np.corrcoef(each[disc], views[view][disc])[0, 1] for each in lying]
        best = lying[int(np.argmax(fits))]
        ring = first_crossing(ring_correlation(best * disc, views[view] * disc), 0.5)
        found.append((max(fits), box * pixel_size / max(ring, 1e-3)))
    correlation, resolution = np.array(found).T
    return correlation, resolution


def _unit(rings: np.ndarray) -> np.ndarray:
    rings = rings.copy()
    rings[:, :, 0] -= rings[:, :, 0].mean(axis=1, keepdims=True)
    weights = np.where(np.arange(rings.shape[2]), 2, 1)
    norm = np.sqrt((np.square(np.abs(rings)) * weights).sum(axis=(1, 2)))
    return rings / norm[:, None, None]


def _best(grid: PolarGrid, average: np.ndarray, bank: np.ndarray) -> tuple[int, float, bool, tuple[int, int]]:
    """Return view, angle, mirror and centre of the best correlation."""
    found = (-np.inf, 0, 0.0, False, (0, 0))
    tiled = np.repeat(average[None], len(SHIFTS), axis=0).astype(np.float32)
    shifted = _unit(grid.coefficients(tiled, np.array(SHIFTS, float)))
    for mirror in (False, True):
        rings = shifted.conj() if mirror else shifted
        spectra = np.einsum("srm,vrm->svm", rings, bank.conj(), optimize=True)
        padded = np.zeros((*spectra.shape[:2], ANGLES // 2 + 1), np.complex64)
        padded[..., :FREQUENCIES] = spectra
        # sum_m S_m e^(i m phi): the image lies on the view when turned by phi
        curve = scipy.fft.irfft(padded, n=ANGLES, axis=2)
        s, v, a = np.unravel_index(curve.argmax(), curve.shape)
        if curve[s, v, a] > found[0]:
            found = (curve[s, v, a], int(v), 2 * np.pi * a / ANGLES, mirror, SHIFTS[s])
    return found[1:]
