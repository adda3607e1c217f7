"""The particle table that every dialect is read into and written from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.header import Triple

COLUMNS = (
    *("tomo_name", "tomo_num", "template", "class", "x", "y", "z", "x_a", "y_a", "z_a"),
    *("score", "score_raw", "zscore", "noise", "margin", "qvalue", "angle_row"),
    *("phi", "theta", "psi", "qw", "qx", "qy", "qz"),
)
POSITION = ["x", "y", "z"]
ANGLES = ["phi", "theta", "psi"]
TRAILING_NUMBER = r"(\d+)$"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a dialect needs beyond the table itself.

    Attributes
    ----------
    voxel_size
        Of the searched tomogram, angstrom.
    binning
        Searched voxel over unbinned pixel.
    tomogram_shape
        Unbinned size (z, y, x) in pixels, or one by tomogram name (RELION 5).
    origin
        Of the tomogram, (z, y, x) in angstrom (the angstrom columns when reading).
    object_number
        STOPGAP's object.
    split_halves
        STOPGAP's half sets: A and B in turn, else all A.
    tilt_range
        Least and greatest tilt, degrees (Dynamo).
    voltage, cs, amplitude_contrast
        kV, mm, fraction (RELION).
    """

    voxel_size: float | None = None
    binning: float = 1.0
    tomogram_shape: Triple | Mapping[str, Triple] | None = None
    origin: Triple = (0.0, 0.0, 0.0)
    object_number: int = 1
    split_halves: bool = False
    tilt_range: tuple[float, float] = (0.0, 0.0)
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07

    def require_voxel_size(self, dialect: str) -> float:
        """Return the voxel size; raise InputError where a dialect needs it and it is not given."""
        if self.voxel_size is None:
            raise InputError(f"{dialect}: voxel_size is required")
        return self.voxel_size


def complete_table(table: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
    """Return a table with the columns of `COLUMNS` from x, y, z, phi, theta, psi and what else is known.

    Names follow from numbers and numbers from names; angstrom positions need the voxel size; quaternions
    (qw >= 0) are those of the rotation that carries the template into the tomogram.
    """
    table = table.reset_index(drop=True)
    named = _with_names(table)
    if options.voxel_size is not None:
        place = table[POSITION].to_numpy(float) * options.voxel_size + np.array(options.origin)[::-1]
        named = named.assign(**dict(zip(("x_a", "y_a", "z_a"), place.T, strict=True)))
    if len(table):
        quaternions = rotation_from_euler(table[ANGLES].to_numpy(float)).as_quat(canonical=True)
        named = named.assign(**dict(zip(("qx", "qy", "qz", "qw"), quaternions.T, strict=True)))
    return named.reindex(columns=list(COLUMNS))


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    if "tomo_name" not in table:
        return table.assign(tomo_name=table["tomo_num"].astype(str))
    if "tomo_num" not in table:
        return table.assign(tomo_num=tomogram_numbers(table["tomo_name"]))
    return table


def tomogram_numbers(names: pd.Series) -> np.ndarray:
    """Return the number that ends each name (17 of TS_017); if any has none, 1, 2, ... as they appear."""
    ends = names.astype(str).str.extract(TRAILING_NUMBER)[0]
    if ends.isna().any():
        return pd.factorize(names)[0] + 1
    return ends.to_numpy().astype(np.int64)


def column(table: pd.DataFrame, name: str, default: float) -> np.ndarray:
    """Return a column as float64, `default` where it is absent or NaN."""
    if name not in table:
        return np.full(len(table), float(default))
    return pd.to_numeric(table[name], errors="coerce").fillna(default).to_numpy(dtype=float)


def positions(table: pd.DataFrame) -> np.ndarray:
    """Return the 0-based voxel positions (N, 3) in (x, y, z) order."""
    return table[POSITION].to_numpy(dtype=float)


def angles(table: pd.DataFrame) -> np.ndarray:
    """Return the orientations (N, 3), zxz degrees: phi, theta, psi."""
    return table[ANGLES].to_numpy(dtype=float)


def names(table: pd.DataFrame) -> pd.Series:
    """Return the tomogram names, the number as text where the table has no names."""
    return (table["tomo_name"] if "tomo_name" in table else table["tomo_num"]).astype(str)


def numbers(table: pd.DataFrame) -> np.ndarray:
    """Return the tomogram numbers, from the names where the table has no numbers."""
    if "tomo_num" in table and not table["tomo_num"].isna().any():
        return table["tomo_num"].to_numpy(dtype=np.int64)
    return tomogram_numbers(names(table))
