"""Euler angles to rotations and back.

A rotation is active, in (x, y, z), and carries the template into the data.
"""

import warnings
from typing import Literal, get_args

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError

Convention = Literal["zxz", "relion"]


def rotation_from_euler(angles: np.ndarray, convention: Convention = "zxz") -> Rotation:
    """Return the rotations that Euler angles stand for.

    Parameters
    ----------
    angles
        (N, 3), degrees. ``zxz`` (STOPGAP, GAPSTOP): columns phi, theta, psi, R = Rz(psi) Rx(theta) Rz(phi).
        ``relion``: columns rot, tilt, psi, R = Rz(-psi) Ry(-tilt) Rz(-rot).
    convention
        Which of the two.

    Raises
    ------
    InputError
        The convention is neither, or the angles are not three columns.
    """
    _check_convention(convention)
    angles = np.atleast_2d(np.asarray(angles, dtype=np.float64))
    if angles.ndim != 2 or angles.shape[1] != 3:
        raise InputError(f"Euler angles of shape {angles.shape}: expected (N, 3)")
    if convention == "relion":
        return Rotation.from_euler("zyz", -angles, degrees=True)
    return Rotation.from_euler("zxz", angles, degrees=True)


def euler_from_rotation(rotation: Rotation, convention: Convention = "zxz") -> np.ndarray:
    """Return the Euler angles of rotations.

    Parameters
    ----------
    rotation
        N rotations, or one.
    convention
        ``zxz`` or ``relion``, as in `rotation_from_euler`.

    Returns
    -------
    numpy.ndarray
        (N, 3), degrees; theta and tilt in [0, 180], the others in (-180, 180]. Where theta is 0 or 180 only
        one other angle is defined: psi of zxz is then 0.
    """
    _check_convention(convention)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = np.atleast_2d(rotation.as_euler("zxz", degrees=True))
    angles[:, [0, 2]] = wrap_degrees(angles[:, [0, 2]])
    return zxz_to_relion(angles) if convention == "relion" else angles


def zxz_to_relion(angles: np.ndarray) -> np.ndarray:
    """Return RELION's (rot, tilt, psi) of the same rotations as zxz (phi, theta, psi).

    Parameters
    ----------
    angles
        (N, 3), degrees, columns phi, theta, psi.

    Returns
    -------
    numpy.ndarray
        (N, 3), degrees: rot = 90 - phi, tilt = theta, psi = -90 - psi; rot and psi in (-180, 180].
    """
    phi, theta, psi = np.atleast_2d(np.asarray(angles, dtype=np.float64)).T
    return np.stack([wrap_degrees(90.0 - phi), theta, wrap_degrees(-90.0 - psi)], axis=1)


def wrap_degrees(angles: np.ndarray) -> np.ndarray:
    """Return angles (degrees, any shape) in (-180, 180]."""
    return 180.0 - np.mod(180.0 - np.asarray(angles, dtype=np.float64), 360.0)


def _check_convention(convention: str) -> None:
    if convention not in get_args(Convention):
        raise InputError(f"Euler convention {convention}: expected zxz or relion")
