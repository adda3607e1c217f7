"""Point groups in the settings that the programs of the field write."""

import re
from typing import Any, cast

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError


def symmetry_group(name: str) -> Rotation:
    """Return every rotation of a point group, the identity first.

    Parameters
    ----------
    name
        ``Cn``, ``Dn`` (n 1 to 99): n-fold axis on z, a 2-fold axis of D on x. ``T``, ``O``: 2- and 4-fold
        axes on x, y, z. ``T3`` (T of RELION): a 3-fold axis on z, a 2-fold axis on (0, 0.8165, 0.5774).
        ``I`` and ``I1`` (I of STOPGAP): 2-fold axes on x, y, z, a 5-fold axis on (0, 0.5257, 0.8507).
        ``I2`` (I of RELION): I1 turned by 90 degrees about z.

    Raises
    ------
    InputError
        The name is none of these.
    """
    key = name.strip().upper()
    if axial_order(key) is not None:
        return Rotation.create_group(cast(Any, key))
    match key:
        case "T" | "O":
            return _identity_first(Rotation.create_group(cast(Any, key)))
        case "I" | "I1":
            return _identity_first(Rotation.create_group("I"))
        case "I2":
            return _turned(Rotation.create_group("I"), Rotation.from_euler("z", 90.0, degrees=True))
        case "T3":
            return _turned(Rotation.create_group("T"), _two_folds_about_z())
        case _:
            raise InputError(f"symmetry = {name}: expected Cn, Dn, T, T3, O, I, I1, I2")


def axial_order(name: str) -> int | None:
    """Return n of ``Cn`` and ``Dn`` (1 to 99), None for any other name."""
    found = re.fullmatch(r"[CD]([1-9]\d?)", name.strip().upper())
    return int(found.group(1)) if found else None


def count_symmetry_mates(rotations: Rotation, name: str, tolerance: float = 0.01) -> int:
    """Return how many rotations of a list show a view of the template that an earlier one shows already.

    Parameters
    ----------
    rotations
        The list.
    name
        Point group of the template.
    tolerance
        Angle below which two views are one, degrees.
    """
    quaternions = rotations.as_quat()
    # q and -q are one rotation; the chord between quaternions is half the angle
    tree = KDTree(np.concatenate([quaternions, -quaternions]))
    reach = np.radians(tolerance) / 2.0
    is_mate = np.zeros(len(quaternions), dtype=bool)
    for g in symmetry_group(name)[1:]:
        _, nearest = tree.query((rotations * g).as_quat(), distance_upper_bound=reach)
        found = nearest < 2 * len(quaternions)
        is_mate |= found & (nearest % len(quaternions) < np.arange(len(quaternions)))
    return int(is_mate.sum())


def _identity_first(group: Rotation) -> Rotation:
    return group[np.argsort(group.magnitude() > 1e-6, kind="stable")]


def _turned(group: Rotation, turn: Rotation) -> Rotation:
    return _identity_first(turn * group * turn.inv())


def _two_folds_about_z() -> Rotation:
    """Return the turn that carries x, y, z to three axes that a 3-fold axis on z permutes."""
    first = np.array([0.0, np.sqrt(2.0 / 3.0), np.sqrt(1.0 / 3.0)])
    around = Rotation.from_euler("z", [[0.0], [120.0], [240.0]], degrees=True)
    return Rotation.from_matrix(around.apply(first).T)
