"""Rotations around a known pose: tilts in a disc, then turns in the plane."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.zyz import zyz_matrices
from cryodask.geometry.zyz_grids import OrientationGrid

_TOLERANCE = 1e-9
COARSENING = 3  # steps of the first pass of a search from coarse to fine, in steps of the grid


@dataclass(frozen=True)
class LocalGrid:
    """A grid of turns of the image frame with all three degrees of freedom.

    Parameters
    ----------
    theta_range, theta_step
        Largest tilt and its step on a square lattice, degrees.
    psi_range, psi_step
        Largest turn in the plane either way and its step, degrees.

    Raises
    ------
    InputError
        A step that is not positive, a range below 0.
    """

    theta_range: float = 2.5
    theta_step: float = 0.25
    psi_range: float = 1.5
    psi_step: float = 0.1

    def __post_init__(self) -> None:
        for name in ("theta_step", "psi_step"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} = {getattr(self, name):g}: expected more than 0 degrees")
        for name in ("theta_range", "psi_range"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} = {getattr(self, name):g}: expected at least 0 degrees")

    @property
    def spacing(self) -> float:
        """The farthest that an orientation inside the grid lies from its nearest row, degrees."""
        return float(np.hypot(self.theta_step / np.sqrt(2.0), 0.5 * self.psi_step))

    def matrices(self) -> np.ndarray:
        """Return the turns delta, (N, 3, 3): E' = E delta. The first is "no change", then by rising tilt."""
        reach = int(self.theta_range / self.theta_step + _TOLERANCE)
        steps = np.arange(-reach, reach + 1) * self.theta_step
        row, column = np.meshgrid(steps, steps, indexing="ij")
        tilts = np.stack([column.ravel(), row.ravel()], axis=1)
        size = np.hypot(*tilts.T)
        inside = size <= self.theta_range + _TOLERANCE
        tilts, size = tilts[inside], size[inside]
        # equal tilts must not be parted by their last bits
        tilts = tilts[np.lexsort((tilts[:, 0], tilts[:, 1], size.round(9)))]
        count = int(self.psi_range / self.psi_step + _TOLERANCE)
        turns = np.arange(-count, count + 1) * self.psi_step
        turns = turns[np.lexsort((turns, np.abs(turns).round(9)))]
        i, j = np.indices((len(tilts), len(turns))).reshape(2, -1)
        return tilt_matrices(tilts[i], turns[j])

    def coarse(self) -> "LocalGrid":
        """Return the same grid at three times both steps."""
        return LocalGrid(
            self.theta_range, COARSENING * self.theta_step, self.psi_range, COARSENING * self.psi_step
        )

    def around(self) -> np.ndarray:
        """Return the turns of up to two fine steps in each of the three, (125, 3, 3), "no change" first."""
        steps = np.arange(-2, 3)
        rows = np.array([(a, b, c) for a in steps for b in steps for c in steps], float)
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0], np.abs(rows).sum(axis=1)))]
        return tilt_matrices(rows[:, :2] * self.theta_step, rows[:, 2] * self.psi_step)


def tilt_matrices(tilts: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Return Rz(a) Ry(tau) Rz(b - a): a tilt by tau towards azimuth a, then b in the plane.

    Parameters
    ----------
    tilts
        (N, 2): tau cos a, tau sin a, degrees.
    turns
        (N,): b, degrees.

    Returns
    -------
    (N, 3, 3) float64.
    """
    azimuth = np.degrees(np.arctan2(tilts[:, 1], tilts[:, 0]))
    angles = np.stack([azimuth, np.hypot(*tilts.T), turns - azimuth], axis=1)
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()


def leopard_em_local_matrices(
    theta_range: float, theta_step: float, psi_range: float, psi_step: float
) -> np.ndarray:
    """Return the offsets of Leopard-EM 1.2's refinement, (N, 3, 3): E' = offset E.

    Its uniform grid with phi and psi both in the range of psi; at its defaults phi takes two values only, so
    that one degree of freedom is nearly lost.
    """
    grid = OrientationGrid(
        psi_step=psi_step,
        theta_step=theta_step,
        symmetry=None,
        phi=(-psi_range, psi_range),
        theta=(-theta_range, theta_range),
        psi=(-psi_range, psi_range + 1e-6),
    )
    return zyz_matrices(grid.angles())


def roll_angles(
    rolls: np.ndarray,
    theta: tuple[float, float],
    theta_step: float,
    psi: tuple[float, float],
    psi_step: float,
) -> np.ndarray:
    """Return ZYZ angles of tilts about axes in the plane, (N, 3) degrees, in the order of Leopard-EM.

    Parameters
    ----------
    rolls
        (R,) directions of the axes.
    theta, psi
        Ranges, ends included.
    theta_step, psi_step
        Steps, degrees.
    """
    tilts, turns = (
        low + step * np.arange(int((high - low) / step + _TOLERANCE) + 1)
        for (low, high), step in ((theta, theta_step), (psi, psi_step))
    )
    roll, tilt, turn = (axis.ravel() for axis in np.meshgrid(rolls, tilts, turns, indexing="ij"))
    return np.stack([np.mod(roll + turn, 360.0), tilt, 360.0 - roll], axis=1)
