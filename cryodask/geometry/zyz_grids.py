"""Orientation grids of micrograph matching: ZYZ angles, psi slowest, then theta, then phi.

The rows and their order are those of Leopard-EM 1.2 (torch-so3): hypothesis ids and thresholds count them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import healpix
import numpy as np

from cryodask.errors import InputError
from cryodask.geometry.symmetry import axial_order

BaseGrid = Literal["uniform", "healpix", "cartesian"]
Range = tuple[float, float]

_FULL: Range = (0.0, 360.0)
# Directions that the groups without one axis leave, degrees (phi_max, theta_max).
_CUBIC = {"T": (180.0, 54.7356), "O": (90.0, 54.7356), "I": (180.0, 31.7)}
_CARTESIAN_PHI_STEP = 2.5


@dataclass(frozen=True)
class OrientationGrid:
    """A grid of orientations.

    Parameters
    ----------
    psi_step, theta_step
        In-plane and out-of-plane step, degrees.
    symmetry
        ``C<n>``, ``D<n>``, ``T``, ``O``, ``I`` (``I1``, ``I2`` alike), any case; None to give ranges.
    base
        ``uniform``, ``healpix`` or ``cartesian``.
    phi, theta, psi
        Ranges, degrees, where `symmetry` is None.
    """

    psi_step: float = 1.5
    theta_step: float = 2.5
    symmetry: str | None = "C1"
    base: BaseGrid = "uniform"
    phi: Range = _FULL
    theta: Range = (0.0, 180.0)
    psi: Range = _FULL

    def ranges(self) -> tuple[Range, Range, Range]:
        """Return the ranges of phi, theta and psi after the symmetry, degrees."""
        if self.symmetry is None:
            return self.phi, self.theta, self.psi
        phi_max, theta_max = symmetry_limits(self.symmetry)
        return (0.0, phi_max), (0.0, theta_max), _FULL

    def angles(self) -> np.ndarray:
        """Return the grid, (N, 3) float64, degrees, columns phi, theta, psi.

        Raises
        ------
        InputError
            A step is not positive, or the symmetry unknown.
        """
        for name, step in (("psi_step", self.psi_step), ("theta_step", self.theta_step)):
            if not step > 0:
                raise InputError(f"{name} = {step:g}: expected more than 0 degrees")
        phi, theta, psi = self.ranges()
        pairs = _BASES[self.base](self.theta_step, phi, theta)
        turns = psi_values(psi, self.psi_step)
        return np.column_stack([np.tile(pairs, (len(turns), 1)), np.repeat(turns, len(pairs))])


def symmetry_limits(symmetry: str) -> tuple[float, float]:
    """Return the largest phi and theta, degrees, that a point group leaves to search; psi is always full.

    The axes must lie as follows: n-fold of C and D on z; 2-folds of T and I, 4-folds of O on x, y, z.

    Raises
    ------
    InputError
        Another name.
    """
    name = symmetry.strip().upper()
    order = axial_order(name)
    if order is not None:
        return 360.0 / order, 180.0 if name.startswith("C") else 90.0
    limits = _CUBIC.get("I" if name in ("I1", "I2") else name)
    if limits is None:
        raise InputError(f"symmetry = {symmetry}: expected C<n>, D<n>, T, O or I")
    return limits


def psi_values(psi: Range, step: float) -> np.ndarray:
    """Return the in-plane angles psi_min + i step below psi_max, degrees; one where the range is empty."""
    low, high = psi
    count = max(1, math.ceil((high - low) / step))
    values = low + step * np.arange(count + 1)
    return values[:1] if high <= low else values[values < high]


def uniform_directions(step: float, phi: Range, theta: Range) -> np.ndarray:
    """Return (phi, theta) rows of equal spacing on rings of theta, degrees.

    The number of phi on a ring is ceil(S/d) in float64, and may hold one redundant phi_max where the quotient
    exceeds a whole number by a unit in the last place: torch-so3's lists do, and counts must agree.
    """
    rings = math.ceil((theta[1] + step - theta[0]) / step)
    rows = []
    for ring_theta in theta[0] + step * np.arange(rings):
        rows.append(_ring(ring_theta, step, phi))
    return np.concatenate(rows)


def _ring(theta: float, step: float, phi: Range) -> np.ndarray:
    span = math.radians(phi[1] - phi[0])
    if span <= 0:
        values = np.array([phi[0]])
    elif theta == 0.0 and phi[0] < 0.0 <= phi[1]:
        values = np.zeros(1)
    else:
        distance = min(math.radians(step) / (abs(math.sin(math.radians(theta))) + 1e-6), span)
        distance = span / round(span / distance)
        values = phi[0] + np.degrees(distance * np.arange(math.ceil(span / distance)))
    return np.column_stack([values, np.full(len(values), theta)])


def healpix_rows(step: float, phi: Range, theta: Range) -> np.ndarray:
    """Return (phi, theta) of HEALPix pixels of about step^2 inside closed ranges, degrees, by rings."""
    nside = math.ceil(math.sqrt(int(4.0 * math.pi / math.radians(step) ** 2) / 12.0))
    polar, azimuth = np.degrees(healpix.pix2ang(nside, np.arange(12 * nside**2)))
    found = np.column_stack([np.round(np.mod(azimuth, 360.0), 12), polar])
    inside = (found[:, 0] >= phi[0]) & (found[:, 0] <= phi[1])
    return found[inside & (found[:, 1] >= theta[0]) & (found[:, 1] <= theta[1])]


def cartesian_rows(step: float, phi: Range, theta: Range) -> np.ndarray:
    """Return (phi, theta) of a rectangular grid, ends left out, phi outer in steps of 2.5 degrees."""
    outer, inner = np.arange(phi[0], phi[1], _CARTESIAN_PHI_STEP), np.arange(theta[0], theta[1], step)
    return np.column_stack([np.repeat(outer, len(inner)), np.tile(inner, len(outer))])


_BASES: dict[str, Callable[[float, Range, Range], np.ndarray]] = {
    "uniform": uniform_directions,
    "healpix": healpix_rows,
    "cartesian": cartesian_rows,
}


def search_values(low: float, high: float, step: float, *, with_zero: bool = True) -> np.ndarray:
    """Return the values low + i step up to high, with an exact 0 unless told otherwise (defocus, pixel size).

    Parameters
    ----------
    low, high, step
        Angstrom; step > 0, low <= high.
    with_zero
        Put 0 in its place where no value falls on it.
    """
    count = math.floor((high - low) / step + 1e-6) + 1
    values = low + step * np.arange(max(count, 1))
    values[np.abs(values) < 1e-6 * step] = 0.0
    if with_zero and 0.0 not in values:
        values = np.insert(values, np.searchsorted(values, 0.0), 0.0)
    return values


def overshooting_values(low: float, high: float, step: float, *, with_zero: bool = True) -> np.ndarray:
    """Return the values of Leopard-EM 1.2: float32, one beyond the end where the step does not divide."""
    count = math.ceil((high + step - low) / step)
    values = (np.float32(low) + np.float32(step) * np.arange(count, dtype=np.float32)).astype(np.float32)
    if with_zero and not np.any(np.abs(values) < 1e-6):
        values = np.sort(np.append(values, np.float32(0.0)))
    return values.astype(np.float64)
