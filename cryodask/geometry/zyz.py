"""The ZYZ angles of Leopard-EM, RELION and cisTEM: E = Rz(phi) Ry(theta) Rz(psi), and R = E transposed."""

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import rotation_from_euler

# Below this sine only phi + psi is defined.
_LEAST_SINE = 1e-6


def zyz_matrices(angles: np.ndarray) -> np.ndarray:
    """Return E of ZYZ angles, (N, 3, 3) float64 in (x, y, z).

    An atom at r (from voxel n//2) lands at E transposed · r: the first coordinate along columns, the second
    along rows, the third along the beam.

    Parameters
    ----------
    angles
        (N, 3), degrees, columns phi, theta, psi (RELION's rot, tilt, psi).
    """
    return np.swapaxes(rotation_from_euler(angles, "relion").as_matrix(), 1, 2)


def zyz_angles(matrices: np.ndarray) -> np.ndarray:
    """Return the canonical ZYZ angles of E.

    Parameters
    ----------
    matrices
        (N, 3, 3), or one (3, 3).

    Returns
    -------
    numpy.ndarray
        (N, 3), degrees: theta in [0, 180], phi and psi in [0, 360); phi = 0 where only their sum is defined.
    """
    e = np.reshape(np.asarray(matrices, np.float64), (-1, 3, 3))
    theta = np.arctan2(np.hypot(e[:, 0, 2], e[:, 1, 2]), e[:, 2, 2])
    pole = np.sin(theta) < _LEAST_SINE
    phi = np.where(pole, 0.0, np.arctan2(e[:, 1, 2], e[:, 0, 2]))
    psi = np.where(pole, np.arctan2(e[:, 1, 0], e[:, 1, 1]), np.arctan2(e[:, 2, 1], -e[:, 2, 0]))
    found = np.degrees(np.stack([phi, theta, psi], axis=1))
    found[:, [0, 2]] = _positive(found[:, [0, 2]])
    return found


def zyz_rotations(angles: np.ndarray) -> Rotation:
    """Return R = E transposed, the rotation that carries the template into the data."""
    return rotation_from_euler(angles, "relion")


def _positive(degrees: np.ndarray) -> np.ndarray:
    """Return angles in [0, 360): a remainder of a tiny negative number rounds to 360."""
    wrapped = np.mod(degrees, 360.0)
    return np.where(wrapped >= 360.0, 0.0, wrapped)
