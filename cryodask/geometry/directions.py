"""Directions that cover a cone about z evenly, by three published constructions.

Each function returns (K, 2): theta (0..180) and psi of the rotation Rz(psi) Rx(theta), in degrees. The order
of the rows is part of each definition, for angle maps refer to rows.
"""

import math

import healpix
import numpy as np

from cryodask.geometry.euler import wrap_degrees

_GOLDEN_ANGLE = 180.0 * (3.0 - math.sqrt(5.0))
_POLE_TOLERANCE = 1e-9


def golden_directions(step: float, half_cone: float) -> np.ndarray:
    """Return directions on a golden-angle spiral, as GAPSTOP(TM) and cryoCAT lay them.

    Parameters
    ----------
    step
        Distance of neighbours, degrees.
    half_cone
        Half opening angle of the cone about z, degrees, at most 180.
    """
    theta = np.linspace(0.0, half_cone, round(half_cone / step) + 1)
    theta = theta[(theta > 0.0) & (theta < 180.0)]
    count = 2 + int(np.sum(_points_on_ring(theta, step) + 1))
    i = np.arange(count)
    cosine = 1.0 - (1.0 - math.cos(math.radians(half_cone))) * i / (count - 1)
    return _with_psi(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), i * _GOLDEN_ANGLE)


def ring_directions(step: float, half_cone: float) -> np.ndarray:
    """Return directions on rings of equal theta, as STOPGAP lays them.

    Parameters
    ----------
    step
        Distance of neighbours, degrees.
    half_cone
        Half opening angle of the cone about z, degrees, at most 180.
    """
    n_rings = math.floor(round(half_cone / step, 9) + 0.5) + 1
    theta = np.linspace(0.0, half_cone, n_rings)
    counts = np.maximum(_points_on_ring(theta, step), 1).astype(int)
    psi = [
        np.zeros(1) if at_pole else (np.arange(n) + 0.5) * 360.0 / n
        for n, at_pole in zip(counts, _at_pole(theta), strict=True)
    ]
    return np.column_stack([np.repeat(theta, [len(ring) for ring in psi]), np.concatenate(psi)])


def healpix_directions(step: float, half_cone: float) -> np.ndarray:
    """Return the pixel centres of the coarsest HEALPix grid with pixels no larger than step².

    Rows run ring by ring from z (Gorski et al. 2005); nside need not be a power of two.

    Parameters
    ----------
    step
        Edge of a pixel at most, degrees.
    half_cone
        Directions with larger theta are left out, degrees.
    """
    nside = math.ceil(round(math.sqrt(4.0 * math.pi / 12.0) / math.radians(step), 9))
    theta, azimuth = np.degrees(healpix.pix2ang(nside, np.arange(12 * nside**2)))
    inside = theta <= half_cone + _POLE_TOLERANCE
    return _with_psi(theta[inside], azimuth[inside])


def _points_on_ring(theta: np.ndarray, step: float) -> np.ndarray:
    # rounded first: 360 sin(theta) / step is often whole but for the last bit
    return np.ceil(np.round(360.0 * np.sin(np.radians(theta)) / step, 9))


def _at_pole(theta: np.ndarray) -> np.ndarray:
    return (theta < _POLE_TOLERANCE) | (theta > 180.0 - _POLE_TOLERANCE)


def _with_psi(theta: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    psi = np.where(_at_pole(theta), 0.0, wrap_degrees(azimuth + 90.0))
    return np.stack([theta, psi], axis=1)
