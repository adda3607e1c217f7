"""Rotation lists of STOPGAP, GAPSTOP, cryoCAT, pytom-match-pick, PyTom and RELION."""

import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cryodask.errors import InputError
from cryodask.geometry.euler import zxz_to_relion
from cryodask.io.files import require_exists, written_whole
from cryodask.io.text_numbers import read_number_rows

Order = Literal["zxz", "zzx", "relion"]
Units = Literal["degree", "radian"]

# A shorter list of small rotations is plausible in degrees.
ROWS_TO_SUSPECT_RADIANS = 50


def read_angle_list(
    path: str | os.PathLike[str], order: Order = "zxz", units: Units | None = None
) -> np.ndarray:
    """Read a rotation list.

    Parameters
    ----------
    path
        Text, three numbers a line (commas or white space, a header line is skipped), or PyTom's EM file,
        whose columns are always phi, psi, theta and whose unit is the radian.
    order
        Columns of a text list: ``zxz`` phi, theta, psi; ``zzx`` phi, psi, theta; ``relion`` rot, tilt, psi.
    units
        ``degree`` or ``radian``; by default degree for text, radian for EM.

    Returns
    -------
    numpy.ndarray
        (N, 3) float64, degrees: phi, theta, psi in zxz convention; rows in the order of the file.

    Raises
    ------
    InputError
        "NAME line 4: expected 3 numbers, found 2", "looks like radians, set units", "expected zxz or zzx".
    """
    if order not in get_args(Order):
        raise InputError(f"order {order}: expected zxz or zzx (or relion)")
    if units is not None and units not in get_args(Units):
        raise InputError(f"units {units}: expected degree or radian")
    path = require_exists(path)
    if path.suffix.lower() == ".em":
        return _exchanged(_to_degrees(_read_em(path), units or "radian"), "zzx")
    return _exchanged(_to_degrees(_read_text(path, units), units or "degree"), order)


def angle_list_text(angles: np.ndarray, order: Order = "zxz") -> str:
    """Return a list (N, 3), zxz degrees, as CSV text with five decimals."""
    if order not in get_args(Order):
        raise InputError(f"order {order}: expected zxz or zzx (or relion)")
    columns = _exchanged(np.asarray(angles, dtype=np.float64), order)
    return "".join(f"{a:.5f},{b:.5f},{c:.5f}\n" for a, b, c in columns)


def write_angle_list(
    path: str | os.PathLike[str], angles: np.ndarray, order: Order = "zxz", *, overwrite: bool = False
) -> None:
    """Write a list (N, 3), zxz degrees, as CSV with five decimals.

    Raises
    ------
    InputError
        "NAME exists; use --overwrite".
    """
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(angle_list_text(angles, order), encoding="utf-8")


def _read_text(path: Path, units: Units | None) -> np.ndarray:
    rows = read_number_rows(path)
    for number, values in rows:
        if len(values) != 3:
            raise InputError(f"{path.name} line {number}: expected 3 numbers, found {len(values)}")
    angles = np.array([values for _, values in rows])
    bad = ~np.isfinite(angles).all(axis=1)
    if bad.any():
        raise InputError(f"{path.name} line {rows[int(bad.argmax())][0]}: expected finite numbers")
    if units is None and len(angles) > ROWS_TO_SUSPECT_RADIANS and np.abs(angles).max() <= 2 * np.pi:
        raise InputError(f"{path.name}: looks like radians, set units")
    return angles


def _read_em(path: Path) -> np.ndarray:
    from cryodask.io.volume import read_header, read_stored

    shape = read_header(path).shape
    if shape[0] != 1 or shape[2] != 3:
        raise InputError(f"{path.name}: shape {shape}, expected 3 x N angles")
    return read_stored(path, (slice(None),) * 3)[0].astype(np.float64)


def _to_degrees(angles: np.ndarray, units: Units) -> np.ndarray:
    return np.rad2deg(angles) if units == "radian" else angles


def _exchanged(angles: np.ndarray, order: Order) -> np.ndarray:
    """Turn zxz columns into those of `order`, or back: each of the three changes is its own inverse."""
    if order == "relion":
        return zxz_to_relion(angles)
    return angles[:, [0, 2, 1]] if order == "zzx" else angles
