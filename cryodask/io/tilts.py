"""Tilt series from STOPGAP wedge lists (STAR and EM) and IMOD tilt files."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.star import read_star_table, star_numbers
from cryodask.io.text_numbers import read_number_rows
from cryodask.optics.tilts import TiltSeries

log = logging.getLogger(__name__)

MICROMETRE = 1e4


def read_tilts(
    path: str | os.PathLike[str], tomo_num: int | None = None, *, tilt_column: int | None = None
) -> TiltSeries:
    """Read what a file says of one tilt series.

    Parameters
    ----------
    path
        STOPGAP wedge list ``.star`` or ``.em`` (tomo_num, least, greatest angle), or IMOD ``.tlt``,
        ``.rawtlt`` or ``.txt``, one angle a line.
    tomo_num
        Selects the rows of a wedge list; may be None where the list holds one tomogram.
    tilt_column
        Column (from 1) of the angle in a text file of several columns.

    Returns
    -------
    TiltSeries
        Angles in degrees in file order, defocus in angstrom (mean of the two where there are two).

    Raises
    ------
    InputError
        "no rows for tomo_num 9 (has 17, 18)"; fewer than two tilts; a missing column; more than one column of
        text without `tilt_column`.
    """
    path = require_exists(path)
    suffix = path.suffix.lower()
    if suffix == ".star":
        return _wedge_list(path, tomo_num)
    if suffix == ".em":
        return _em_wedge_list(path, tomo_num)
    if suffix in (".tlt", ".rawtlt", ".txt"):
        return TiltSeries(angles=_at_least_two(path, _tilt_column(path, tilt_column)))
    raise InputError(f"{path.name}: unknown tilt file, expected .star, .em, .tlt, .rawtlt or .txt")


def _wedge_list(path: Path, tomo_num: int | None) -> TiltSeries:
    table = read_star_table(path, "tomo_num", "tilt_angle")
    tomograms = star_numbers(path, table, "tomo_num")[:, 0]
    rows = table[tomograms == _choose(path, tomograms, tomo_num)]
    return TiltSeries(
        angles=_at_least_two(path, star_numbers(path, rows, "tilt_angle")[:, 0]),
        exposure=_column(path, rows, "exposure"),
        defocus=_defocus(path, rows),
        phase_shift=_column(path, rows, "pshift"),
        pixel_size=_constant(path, rows, "pixelsize"),
        tomogram_shape=_tomogram_shape(path, rows),
        voltage=_optics(path, rows, "voltage", 300.0),
        amplitude_contrast=_optics(path, rows, "amp_contrast", 0.07),
        cs=_optics(path, rows, "cs", 2.7),
    )


def _em_wedge_list(path: Path, tomo_num: int | None) -> TiltSeries:
    from cryodask.io.volume import read_volume

    table = read_volume(path)[0].astype(float)
    if table.shape[1] != 3:
        raise InputError(f"{path.name}: {table.shape[1]} values a tomogram, expected 3 (tomo_num, min, max)")
    row = table[table[:, 0] == _choose(path, table[:, 0], tomo_num)][0]
    return TiltSeries(angles=np.sort(row[1:]), is_range=True)


def _choose(path: Path, numbers: np.ndarray, tomo_num: int | None) -> int:
    known = sorted({int(number) for number in numbers})
    found = ", ".join(map(str, known))
    if tomo_num is None and len(known) == 1:
        return known[0]
    if tomo_num is None:
        raise InputError(f"{path.name}: tomo_num is required (has {found})")
    if tomo_num not in known:
        raise InputError(f"{path.name}: no rows for tomo_num {tomo_num} (has {found})")
    return tomo_num


def _tilt_column(path: Path, column: int | None) -> np.ndarray:
    rows = read_number_rows(path)
    number, values = max(rows, key=lambda row: len(row[1]))
    if column is None and len(values) > 1:
        raise InputError(f"{path.name} line {number}: {len(values)} numbers, expected 1 (or set tilt_column)")
    short = [line for line, found in rows if len(found) < (column or 1)]
    if short:
        raise InputError(f"{path.name} line {short[0]}: no column {column}")
    return np.array([found[(column or 1) - 1] for _, found in rows])


def _at_least_two(path: Path, angles: np.ndarray) -> np.ndarray:
    if len(angles) < 2:
        raise InputError(f"{path.name}: {len(angles)} tilt, expected 2 or more")
    return angles


def _column(path: Path, rows: pd.DataFrame, name: str) -> np.ndarray | None:
    if name not in rows or pd.to_numeric(rows[name], errors="coerce").isna().all():
        return None
    return star_numbers(path, rows, name)[:, 0]


def _defocus(path: Path, rows: pd.DataFrame) -> np.ndarray | None:
    first, second = _column(path, rows, "defocus1"), _column(path, rows, "defocus2")
    if first is None:
        first = _column(path, rows, "defocus")
    if first is None:
        return None
    return MICROMETRE * (first if second is None else (first + second) / 2)


def _optics(path: Path, rows: pd.DataFrame, name: str, default: float) -> float:
    value = _constant(path, rows, name)
    if value is None:
        log.info("%s: no column %s, taking %g", path.name, name, default)
        return default
    return value


def _constant(path: Path, rows: pd.DataFrame, name: str) -> float | None:
    values = _column(path, rows, name)
    if values is None:
        return None
    if not np.allclose(values, values[0], rtol=1e-6):
        raise InputError(f"{path.name}: {name} differs between the tilts of one tomogram")
    return float(values[0])


def _tomogram_shape(path: Path, rows: pd.DataFrame) -> tuple[int, int, int] | None:
    edges = [_constant(path, rows, f"tomo_{axis}") for axis in "zyx"]
    if any(edge is None for edge in edges):
        return None
    z, y, x = (round(edge) for edge in edges if edge is not None)
    return z, y, x
