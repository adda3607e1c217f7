"""Tomograms of a RELION 5 project: ``tomograms.star`` and the tilt-series files it names."""

import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.star import read_star, read_star_table, star_numbers
from cryodask.io.tilt_checks import checked_angles, mean_defocus
from cryodask.optics.tilts import TiltSeries

log = logging.getLogger(__name__)

NAME = "rlnTomoName"
SERIES_FILE = "rlnTomoTiltSeriesStarFile"
RECONSTRUCTION = "rlnTomoReconstructedTomogram"
TILT_COLUMNS = ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")
EDGES = ["rlnTomoSizeZ", "rlnTomoSizeY", "rlnTomoSizeX"]
MOST_NAMES = 10


@dataclass(frozen=True)
class TomogramEntry:
    """One row of ``tomograms.star``.

    Parameters
    ----------
    name
        rlnTomoName.
    tomogram
        The reconstruction that the row names: where it was found, else as written.
    """

    name: str
    tomogram: str | None


def list_tomograms(path: str | os.PathLike[str]) -> list[TomogramEntry]:
    """Return the tomograms of a RELION 5 ``tomograms.star``, in file order.

    Raises
    ------
    InputError
        No such file; no column rlnTomoName or rlnTomoTiltSeriesStarFile.
    """
    path = require_exists(path)
    table = read_star_table(path, NAME, SERIES_FILE)
    names = [None] * len(table) if RECONSTRUCTION not in table else table[RECONSTRUCTION].astype(str)
    return [
        TomogramEntry(str(name), None if given is None else str(_find(path, given) or given))
        for name, given in zip(table[NAME], names, strict=True)
    ]


def read_relion_tilts(path: Path, tomo_name: str | None = None, tomo_num: int | None = None) -> TiltSeries:
    """Read the tilt series of one tomogram of a RELION 5 ``tomograms.star``.

    Parameters
    ----------
    path
        The file; the tilt-series file it names is looked up from the working directory and from every parent
        folder of `path`.
    tomo_name
        rlnTomoName of the row; may be None where there is one row.
    tomo_num
        Without `tomo_name`: selects the row whose name ends in this number.

    Raises
    ------
    InputError
        No such tomogram, naming those there are; no tilt-series file; a missing column.
    """
    table = read_star_table(path, NAME, SERIES_FILE)
    row = table.iloc[[_choose(path, [str(name) for name in table[NAME]], tomo_name, tomo_num)]]
    named = str(row[SERIES_FILE].iloc[0])
    source = _find(path, named)
    if source is None:
        raise InputError(
            f"{path.name} line {row.index[0]}: {SERIES_FILE} = {named}: no such file"
            f" (looked in {Path.cwd()} and the folders above {path.name})"
        )
    pixel_size = _value(path, row, "rlnTomoTiltSeriesPixelSize")
    binning = _value(path, row, "rlnTomoTomogramBinning")
    tilts = read_relion_series(source, _value(path, row, "rlnTomoImportFractionalDose"))
    return replace(
        tilts,
        voltage=_value(path, row, "rlnVoltage") or tilts.voltage,
        cs=_value(path, row, "rlnSphericalAberration", tilts.cs),
        amplitude_contrast=_value(path, row, "rlnAmplitudeContrast", tilts.amplitude_contrast),
        pixel_size=pixel_size,
        voxel_size=pixel_size * binning if pixel_size and binning else None,
        tomogram_shape=_shape(path, row),
        defocus_hand=_hand(path, row),
    )


def read_relion_series(path: Path, step: float | None = None) -> TiltSeries:
    """Read a tilt-series file of RELION 5: angles, dose and defocus, without the optics.

    Parameters
    ----------
    path
        The file; angles of rlnTomoYTilt, else rlnTomoNominalStageTiltAngle.
    step
        Dose of one tilt, electrons per square angstrom; the least positive difference of
        rlnMicrographPreExposure when None.

    Raises
    ------
    InputError
        No column of angles; a value that is not a number.
    """
    tables = read_star(path).values()
    table = next(
        (table for table in tables if set(TILT_COLUMNS) & set(table.columns) and not table.empty), None
    )
    if table is None:
        raise InputError(f"{path.name}: no rows with {' or '.join(TILT_COLUMNS)}")
    name = next(name for name in TILT_COLUMNS if name in table)
    return TiltSeries(
        angles=checked_angles(path, star_numbers(path, table, name)[:, 0]),
        exposure=_exposure(path, table, step),
        defocus=_defocus(path, table),
        phase_shift=_column(path, table, "rlnPhaseShift"),
    )


def _find(path: Path, named: str) -> Path | None:
    folders = [Path.cwd(), *path.absolute().parents]
    return next((folder / named for folder in folders if (folder / named).exists()), None)


def _choose(path: Path, names: list[str], tomo_name: str | None, tomo_num: int | None) -> int:
    shown = ", ".join(names[:MOST_NAMES]) + (", .." if len(names) > MOST_NAMES else "")
    if tomo_name is not None:
        fitting = [place for place, name in enumerate(names) if name == tomo_name]
        asked = f"tomo_name {tomo_name}"
    elif tomo_num is not None:
        fitting = [place for place, name in enumerate(names) if _last_number(name) == tomo_num]
        asked = f"tomo_num {tomo_num}"
    else:
        fitting = list(range(len(names)))
        asked = "tomo_name None"
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise InputError(f"{path.name}: no row for {asked} (has {shown})")
    if tomo_name is not None:
        raise InputError(f"{path.name}: {len(fitting)} rows for {asked}, expected 1")
    raise InputError(f"{path.name}: tomo_name is required (has {shown})")


def number_names(names: list[str]) -> list[int]:
    """Return the number that ends each name, or 1, 2, .. where these are not there or not all different."""
    numbers = [_last_number(name) for name in names]
    ends = [number for number in numbers if number is not None]
    return ends if len(set(ends)) == len(names) else list(range(1, len(names) + 1))


def _last_number(name: str) -> int | None:
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def _exposure(source: Path, tilts: pd.DataFrame, step: float | None) -> np.ndarray | None:
    """Return the dose by the end of each tilt: that before it and its own."""
    before = _column(source, tilts, "rlnMicrographPreExposure")
    if before is None:
        return None
    if step is None:
        steps = np.diff(np.unique(before))
        if not len(steps):
            log.info("%s: rlnMicrographPreExposure is the same at every tilt, so no dose", source.name)
            return None
        step = float(steps.min())
    return before + step


def _defocus(source: Path, tilts: pd.DataFrame) -> np.ndarray | None:
    first, second = _column(source, tilts, "rlnDefocusU"), _column(source, tilts, "rlnDefocusV")
    if first is None:
        return None
    return mean_defocus(source, first, first if second is None else second)


def _column(path: Path, table: pd.DataFrame, name: str) -> np.ndarray | None:
    return star_numbers(path, table, name)[:, 0] if name in table else None


@overload
def _value(path: Path, row: pd.DataFrame, name: str) -> float | None: ...
@overload
def _value(path: Path, row: pd.DataFrame, name: str, default: float) -> float: ...
def _value(path: Path, row: pd.DataFrame, name: str, default: float | None = None) -> float | None:
    values = _column(path, row, name)
    return default if values is None else float(values[0])


def _shape(path: Path, row: pd.DataFrame) -> tuple[int, int, int] | None:
    if not set(EDGES) <= set(row.columns):
        return None
    z, y, x = star_numbers(path, row, *EDGES)[0]
    return round(z), round(y), round(x)


def _hand(path: Path, row: pd.DataFrame) -> int | None:
    hand = _value(path, row, "rlnTomoHand")
    if hand is None:
        return None
    if hand not in (1, -1):
        raise InputError(f"{path.name} line {row.index[0]}: rlnTomoHand = {hand:g}, expected 1 or -1")
    return round(hand)
