"""Seeds of a search: where particles may sit and how they stand there, from particle tables or normals."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.files import require_exists
from cryodask.io.header import Triple
from cryodask.io.particle_table import ANGLES, POSITION, TableOptions, names, numbers
from cryodask.io.particles import SUFFIXES, read_particles
from cryodask.io.star import read_star

NORMAL = ["nx", "ny", "nz"]
ANGSTROM = ["x_a", "y_a", "z_a"]
NAMES = {"tomo_name", "tomo_num", "rlntomoname", "rlnmicrographname"}
MOST_NAMES = 10


@dataclass(frozen=True, eq=False)
class Seeds:
    """Places and orientations.

    Parameters
    ----------
    positions
        (N, 3) in (z, y, x), 0-based voxels.
    matrices
        (N, 3, 3) rotations in (x, y, z); of a normal one that carries z onto it.
    has_inplane
        Whether the angle about z means anything: not for normals.
    """

    positions: np.ndarray
    matrices: np.ndarray
    has_inplane: bool

    def __len__(self) -> int:
        return len(self.positions)


def read_seeds(
    path: str | os.PathLike[str], tomo_name: str, tomo_num: int | None, options: TableOptions
) -> Seeds:
    """Read the seeds of one tomogram.

    Parameters
    ----------
    path
        A particle table of any dialect, or CSV or STAR with positions x, y, z (0-based voxels) or x_a, y_a,
        z_a (angstrom), normals nx, ny, nz (of any length), and perhaps tomo_name or tomo_num.
    tomo_name, tomo_num
        Which rows: those of this name, else of this number; a table that names no tomogram is used whole.
    options
        Voxel size, binning and size of the tomogram, which some dialects need.

    Raises
    ------
    InputError
        No such file; a missing column; no rows of this tomogram; a row that is no position or direction.
    """
    path = require_exists(path)
    tables = _tables(path)
    table = next((each for each in tables if set(NORMAL) <= set(each)), None)
    if table is None:
        table = read_particles(path, **vars(options))
        if tables and not any(NAMES & set(each) for each in tables):
            table = table.drop(columns=["tomo_name", "tomo_num"])  # which the reader made up
        rows = _rows_of(path, table, tomo_name, tomo_num)
        _check_finite(path, rows, [*POSITION, *ANGLES])
        matrices = rotation_from_euler(rows[ANGLES].to_numpy(float)).as_matrix()
        return Seeds(rows[POSITION].to_numpy(float)[:, ::-1], matrices, has_inplane=True)
    rows = _rows_of(path, table, tomo_name, tomo_num)
    place = [name for name in (POSITION, ANGSTROM) if set(name) <= set(rows)]
    if not place:
        raise InputError(f"{path.name}: missing column x, y, z (voxels) or x_a, y_a, z_a (angstrom)")
    _check_finite(path, rows, [*place[0], *NORMAL])
    positions = rows[place[0]].to_numpy(float)
    if place[0] == ANGSTROM:
        origin = np.array(options.origin, float)[::-1]
        positions = (positions - origin) / options.require_voxel_size(path.name)
    return Seeds(positions[:, ::-1], _carrying_z(path, rows), has_inplane=False)


def _tables(path: Path) -> list[pd.DataFrame]:
    """Return the tables of a CSV or STAR file, their columns in lower case; of other files none."""
    if path.suffix.lower() == ".star":
        tables = list(read_star(path).values())
    elif path.suffix.lower() == ".csv":
        try:
            tables = [pd.read_csv(path, dtype={"tomo_name": str}, skipinitialspace=True)]
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{path.name}: {error}") from error
        tables[0].index = pd.RangeIndex(2, len(tables[0]) + 2)  # lines of the file
    else:
        if path.suffix.lower() not in SUFFIXES:
            expected = ", ".join(SUFFIXES)
            raise InputError(f"{path.name}: unknown table suffix, expected {expected}")
        return []
    return [table.rename(columns=str.lower) for table in tables]


def _rows_of(path: Path, table: pd.DataFrame, tomo_name: str, tomo_num: int | None) -> pd.DataFrame:
    if table.empty:
        raise InputError(f"{path.name}: no rows")
    if not {"tomo_name", "tomo_num"} & set(table.columns):
        return table
    named = names(table)
    rows = table[named == tomo_name]
    if rows.empty and tomo_num is not None:
        rows = table[numbers(table) == tomo_num]
    if rows.empty:
        known = list(dict.fromkeys(named))
        shown = ", ".join(known[:MOST_NAMES]) + (", .." if len(known) > MOST_NAMES else "")
        number = "" if tomo_num is None else f" or tomo_num {tomo_num}"
        raise InputError(f"{path.name}: no rows for tomo_name {tomo_name}{number} (has {shown})")
    return rows


def _check_finite(path: Path, rows: pd.DataFrame, columns: list[str]) -> None:
    values = rows[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        found = rows[columns[column]].iloc[row]
        raise InputError(
            f"{path.name} row {rows.index[row]}: {columns[column]} = {found}, expected a finite number"
        )


def _carrying_z(path: Path, rows: pd.DataFrame) -> np.ndarray:
    """Return for each normal a rotation that carries z onto it."""
    normals = rows[NORMAL].to_numpy(float)
    lengths = np.linalg.norm(normals, axis=1)
    if not lengths.all():
        raise InputError(f"{path.name} row {rows.index[int(np.argmin(lengths))]}: a normal of length 0")
    x, y, z = (normals / lengths[:, None]).T
    # R = Rz(psi) Rx(theta) carries z to (sin psi sin theta, -cos psi sin theta, cos theta)
    angles = np.stack(
        [np.zeros_like(x), np.degrees(np.arccos(np.clip(z, -1, 1))), np.degrees(np.arctan2(x, -y))]
    )
    return np.asarray(rotation_from_euler(angles.T).as_matrix())


def seed_options(
    *, voxel_size: float, binning: float, unbinned: Triple | None, shape: Triple, origin: Triple
) -> TableOptions:
    """Return what the dialects need to know of a tomogram of some shape, (z, y, x) in voxels.

    Parameters
    ----------
    voxel_size, binning, origin
        As in `TableOptions`.
    unbinned
        Size in unbinned pixels where it is known.
    shape
        Size in voxels.
    """
    z, y, x = unbinned or tuple(binning * size for size in shape)
    return TableOptions(voxel_size=voxel_size, binning=binning, tomogram_shape=(z, y, x), origin=origin)
