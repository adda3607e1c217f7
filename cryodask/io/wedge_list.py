"""Wedge lists of STOPGAP and GAPSTOP (STAR), read and written, and those of ranges (EM), read."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.star import read_star_table, star_numbers, write_star
from cryodask.io.tilt_checks import MICROMETRE, checked_angles, mean_defocus
from cryodask.optics.tilts import TiltSeries

log = logging.getLogger(__name__)

BLOCK = "stopgap_wedgelist"
# columns without which STOPGAP and GAPSTOP refuse a wedge list
GEOMETRY = ["pixelsize", "tomo_x", "tomo_y", "tomo_z"]


def read_wedge_list(path: Path, tomo_num: int | None) -> TiltSeries:
    """Read the rows of one tomogram from a STAR wedge list, one row a tilt.

    Parameters
    ----------
    path
        The file; lengths in unbinned pixels, defocus in µm, phase shift in degrees.
    tomo_num
        May be None where the list holds one tomogram.

    Raises
    ------
    InputError
        "no rows for tomo_num 9 (has 17, 18)"; a missing column; a value that is no number; a value of the
        whole tomogram that differs between its rows.
    """
    table = read_star_table(path, "tomo_num", "tilt_angle")
    tomograms = star_numbers(path, table, "tomo_num")[:, 0]
    rows = table[tomograms == _choose(path, tomograms, tomo_num)]
    return TiltSeries(
        angles=checked_angles(path, star_numbers(path, rows, "tilt_angle")[:, 0]),
        exposure=_column(path, rows, "exposure"),
        defocus=_defocus(path, rows),
        phase_shift=_column(path, rows, "pshift"),
        pixel_size=_constant(path, rows, "pixelsize"),
        tomogram_shape=_tomogram_shape(path, rows),
        z_shift=_constant(path, rows, "z_shift") or 0.0,
        voltage=_optics(path, rows, "voltage", 300.0),
        amplitude_contrast=_optics(path, rows, "amp_contrast", 0.07),
        cs=_optics(path, rows, "cs", 2.7),
    )


def read_em_wedge_list(path: Path, tomo_num: int | None) -> TiltSeries:
    """Read the range of one tomogram from an EM wedge list (tomo_num, least, greatest angle).

    Raises
    ------
    InputError
        Not three values a tomogram; no such tomogram.
    """
    from cryodask.io.volume import read_volume

    table = read_volume(path)[0].astype(float)
    if table.shape[1] != 3:
        raise InputError(f"{path.name}: {table.shape[1]} values a tomogram, expected 3 (tomo_num, min, max)")
    row = table[table[:, 0] == _choose(path, table[:, 0], tomo_num)][0]
    return TiltSeries(angles=checked_angles(path, np.sort(row[1:])), is_range=True)


def write_wedge_list(
    path: str | os.PathLike[str], series: Mapping[int, TiltSeries], *, overwrite: bool = False
) -> None:
    """Write a STAR wedge list that STOPGAP, GAPSTOP and `read_wedge_list` read.

    Parameters
    ----------
    path
        The file to write.
    series
        Number of the tomogram to its tilt series. What no series knows has no column, what some know is NaN
        in the rows of the others.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        No series; a series of which only the range is known; "NAME exists; use --overwrite".
    """
    if not series:
        raise InputError(f"{Path(path).name}: no tilt series to write")
    for number, tilts in series.items():
        if tilts.is_range:
            raise InputError(
                f"{Path(path).name}: tomo_num {number} has only a tilt range, expected all tilts"
            )
    table = pd.concat([_rows(number, tilts) for number, tilts in series.items()], ignore_index=True)
    table = table.dropna(axis="columns", how="all")
    missing = [name for name in GEOMETRY if name not in table]
    if missing:
        log.warning("%s: without %s, which STOPGAP and GAPSTOP need", Path(path).name, ", ".join(missing))
    write_star(path, {BLOCK: table}, column_numbers="", overwrite=overwrite)


def _rows(number: int, tilts: TiltSeries) -> pd.DataFrame:
    nothing = np.full(len(tilts.angles), np.nan)
    z, y, x = tilts.tomogram_shape or (np.nan, np.nan, np.nan)
    return pd.DataFrame(
        {
            "tomo_num": number,
            "pixelsize": np.nan if tilts.pixel_size is None else tilts.pixel_size,
            "tomo_x": x,
            "tomo_y": y,
            "tomo_z": z,
            "z_shift": tilts.z_shift,
            "tilt_angle": tilts.angles,
            "defocus": nothing if tilts.defocus is None else tilts.defocus / MICROMETRE,
            "pshift": nothing if tilts.phase_shift is None else tilts.phase_shift,
            "exposure": nothing if tilts.exposure is None else tilts.exposure,
            "voltage": tilts.voltage,
            "amp_contrast": tilts.amplitude_contrast,
            "cs": tilts.cs,
        }
    )


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
    return mean_defocus(path, MICROMETRE * first, MICROMETRE * (first if second is None else second))


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
