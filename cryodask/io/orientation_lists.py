"""Lists of orientations: BioEM's (a count, then Euler angles or quaternions), plain angles, RELION's STAR."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.files import require_exists
from cryodask.io.star import read_star
from cryodask.io.text_numbers import read_number_rows

Kind = Literal["auto", "quaternion", "euler"]
NORM_TOLERANCE = 1e-3
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True)
class OrientationList:
    """Orientations of a structure in images.

    Parameters
    ----------
    axes : (S, 2, 3)
        Unit vectors along the image's x and y in the structure's frame: an atom at r lands at their products
        with r.
    log_prior : (S,) or None
        As the file has it, not normalised.
    columns : (S, 3 or 4) or None
        Euler angles (radians) or quaternions of a BioEM list, as written.
    has_psi
        Whether the file gives in-plane rotations.
    """

    axes: np.ndarray
    log_prior: np.ndarray | None = None
    columns: np.ndarray | None = None
    has_psi: bool = True

    def __len__(self) -> int:
        return len(self.axes)


def read_orientations(
    path: str | os.PathLike[str], *, has_prior: bool = False, kind: Kind = "auto"
) -> OrientationList:
    """Read a list of orientations.

    Parameters
    ----------
    path
        - BioEM: the first line is the number of rows; then Euler angles (alpha, beta, gamma in radians,
          Goldstein's Z X Z) or quaternions (x, y, z, w), and with `has_prior` a probability;
        - text: azimuth, polar [, psi] in degrees, and with `has_prior` a log prior;
        - STAR: rlnAngleRot, rlnAngleTilt [, rlnAnglePsi].
    has_prior
        Whether the last column is the prior.
    kind
        What a BioEM list holds; ``auto`` goes by the number of columns.

    Raises
    ------
    InputError
        "quats.txt line 7: expected 4 or 5 numbers, found 3"; "norm 1.4"; "line 1 says 576, found 575".
    """
    path = require_exists(path)
    if path.suffix.lower() == ".star":
        if has_prior:
            raise InputError(f"{path.name}: a STAR file has no prior of orientations; use a text list")
        return _read_star(path)
    rows = read_number_rows(path)
    if len(rows[0][1]) == 1:
        return _read_bioem(path, rows, has_prior, kind)
    return _read_angles(path, rows, has_prior)


def quaternion_axes(quaternions: np.ndarray) -> np.ndarray:
    """Return the image axes (S, 2, 3) of quaternions (x, y, z, w) in BioEM's sense."""
    matrices = Rotation.from_quat(quaternions).as_matrix().transpose(0, 2, 1)
    return np.ascontiguousarray(matrices[:, :2])


def goldstein_axes(angles: np.ndarray) -> np.ndarray:
    """Return the image axes (S, 2, 3) of Euler angles alpha, beta, gamma (radians), Goldstein's Z X Z."""
    matrices = Rotation.from_euler("ZXZ", angles).as_matrix().transpose(0, 2, 1)
    return np.ascontiguousarray(matrices[:, :2])


def bioem_euler_grid(alpha: int, beta: int) -> np.ndarray:
    """Return BioEM's grid of Euler angles (alpha beta alpha, 3), radians: even in alpha, cos beta, gamma."""
    around = -np.pi + 2 * np.pi / alpha * (np.arange(alpha) + 0.5)
    tilts = np.arccos(-1 + 2 / beta * (np.arange(beta) + 0.5))
    grid = np.meshgrid(around, tilts, around, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 3)


def _read_star(path: Path) -> OrientationList:
    for frame in read_star(path).values():
        if ANGLES[0] in frame and ANGLES[1] in frame:
            angles = np.zeros((len(frame), 3))
            for i, name in enumerate(ANGLES):
                if name in frame:
                    angles[:, i] = frame[name].to_numpy(float)
            return OrientationList(_relion_axes(angles), has_psi=ANGLES[2] in frame)
    raise InputError(f"{path.name}: expected rlnAngleRot and rlnAngleTilt")


def _relion_axes(angles: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rotation_from_euler(angles, "relion").as_matrix()[:, :2])


def _read_angles(path: Path, rows: list[tuple[int, list[float]]], has_prior: bool) -> OrientationList:
    extra = int(has_prior)
    width = len(rows[0][1])
    if width - extra not in (2, 3):
        raise InputError(
            f"{path.name} line {rows[0][0]}: expected {2 + extra} or {3 + extra} numbers, found {width}"
        )
    table = _table(path, rows, width, f"{width} numbers")
    angles = np.zeros((len(table), 3))
    angles[:, : width - extra] = table[:, : width - extra]
    prior = table[:, -1] if has_prior else None
    return OrientationList(_relion_axes(angles), prior, has_psi=width - extra == 3)


def _read_bioem(
    path: Path, rows: list[tuple[int, list[float]]], has_prior: bool, kind: Kind
) -> OrientationList:
    said, rows = int(rows[0][1][0]), rows[1:]
    if said != len(rows):
        raise InputError(f"{path.name}: line 1 says {said}, found {len(rows)}")
    width = len(rows[0][1])
    is_euler = kind == "euler" or (kind == "auto" and width == (4 if has_prior else 3))
    least = (3 if is_euler else 4) + has_prior
    if width not in (least, least + (not has_prior)):
        expected = f"{least}" if has_prior else f"{least} or {least + 1}"
        raise InputError(f"{path.name} line {rows[0][0]}: expected {expected} numbers, found {width}")
    table = _table(path, rows, width, f"{width} numbers" if is_euler else "4 or 5 numbers")
    prior = None
    if has_prior:
        wrong = np.flatnonzero(~(table[:, -1] > 0))
        if len(wrong):
            number, row = rows[wrong[0]]
            raise InputError(f"{path.name} line {number}: prior {row[-1]:g}, expected more than 0")
        prior = np.log(table[:, -1])
    if is_euler:
        return OrientationList(goldstein_axes(table[:, :3]), prior, table[:, :3])
    norms = np.linalg.norm(table[:, :4], axis=1)
    wrong = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)
    if len(wrong):
        raise InputError(
            f"{path.name} line {rows[wrong[0]][0]}: norm {norms[wrong[0]]:.3g}, expected a unit quaternion"
        )
    return OrientationList(quaternion_axes(table[:, :4]), prior, table[:, :4])


def _table(path: Path, rows: list[tuple[int, list[float]]], width: int, expected: str) -> np.ndarray:
    for number, row in rows:
        if len(row) != width:
            raise InputError(f"{path.name} line {number}: expected {expected}, found {len(row)}")
        if not np.isfinite(row).all():
            raise InputError(f"{path.name} line {number}: expected finite numbers")
    return np.array([row for _, row in rows])
